"""Measurements made on a finished model, written into its report and its card."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ..evaluation.perplexity import Perplexity
from ..evaluation.protocol import headline
from ..evaluation.scores import Score, record_of
from ..records import EvaluationRecord, SpeedRecord
from ..report import REPORT_FILE_NAME, PruningReport
from .base_card import inherited_from
from .card import CARD_FILE_NAME, render_card
from .records import check_records


def perplexity_record(pruned: Perplexity, dense: Perplexity | None = None) -> EvaluationRecord:
    """Two perplexities, of the pruned and of the dense model, as one measurement for the report.

    Args:
        pruned: The pruned model's perplexity.
        dense: The dense model's, measured in the same way.

    Returns:
        The measurement.

    Raises:
        ConfigError: If the two were measured in different ways, so that they do not compare.
        ReportError: If a perplexity is not a finite number.

    Example:
        ```python
        record = perplexity_record(perplexity(model, tokenizer, "wikitext2"))
        ```
    """
    return record_of(pruned.score(), None if dense is None else dense.score())


def record_scores(pruned: Sequence[Score], dense: Sequence[Score] | None = None) -> list[EvaluationRecord]:
    """The scores of the pruned and of the dense model as measurements for the report: those that the paper reports.

    Args:
        pruned: The pruned model's scores.
        dense: The dense model's, measured in the same way.

    Returns:
        A measurement for each score of the pruned model.

    Raises:
        ConfigError: If two were measured in different ways, so that they do not compare.
        ReportError: If a number is not finite.

    Example:
        ```python
        record_evaluations("smollm2-sleb-20", record_scores(evaluate(pruned, ...), evaluate(dense, ...)))
        ```
    """
    others = {(score.task, score.metric): score for score in headline(dense or ())}
    return [record_of(score, others.get((score.task, score.metric))) for score in headline(pruned)]


def record_evaluations(
    directory: str | Path, evaluations: Sequence[EvaluationRecord] = (), speeds: Sequence[SpeedRecord] = ()
) -> PruningReport:
    """Write measurements into the report and the card of a saved model. The card is written anew.

    A measurement by the same protocol replaces the one that was there.

    Args:
        directory: The folder, as `save_pretrained` wrote it.
        evaluations: What was measured of its quality.
        speeds: What was measured of its speed.

    Returns:
        The report as it is now.

    Raises:
        PushError: If the folder is not complete, or its weights were changed after it was saved.
        ReportError: If its report is malformed.

    Example:
        ```python
        record_evaluations("smollm2-sleb-20", [perplexity_record(pruned=after, dense=before)])
        ```
    """
    folder = Path(directory)
    report = check_records(folder)
    known = {_key(one): one for one in report.evaluations}
    for one in evaluations:
        earlier = known.get(_key(one))
        # What the pruned model gave before it was healed is not measured again.
        known[_key(one)] = replace(one, pruned=earlier.pruned) if earlier and one.pruned is None else one
    fast = {(one.scenario, one.protocol): one for one in (*report.speeds, *speeds)}
    report = replace(report, evaluations=tuple(known.values()), speeds=tuple(fast.values()))
    # Licence and language are in the card that is there, so the Hub need not be asked again.
    card = render_card(report, folder.resolve().name, inherited_from(str(folder.resolve())))
    with TemporaryDirectory(dir=folder) as temporary:
        report.save(temporary)
        card.save(Path(temporary) / CARD_FILE_NAME)
        for name in (REPORT_FILE_NAME, CARD_FILE_NAME):
            os.replace(Path(temporary) / name, folder / name)
    return report


def healed_evaluations(
    pruned: Sequence[EvaluationRecord], healed: Sequence[EvaluationRecord]
) -> tuple[EvaluationRecord, ...]:
    """Measurements on a healed model, beside those that were made on the model before, by the same protocol.

    Args:
        pruned: The measurements on the pruned model.
        healed: Those on the healed one. What was not measured again tells nothing of it, and is left out.

    Returns:
        The healed model's measurements, with the pruned and the dense model's numbers where they are known.

    Example:
        >>> before = EvaluationRecord("perplexity", "c4", "8 windows", after=74.8, before=30.5)
        >>> one, = healed_evaluations([before], [EvaluationRecord("perplexity", "c4", "8 windows", after=41.0)])
        >>> one.before, one.pruned, one.after
        (30.5, 74.8, 41.0)
    """
    known = {_key(one): one for one in pruned}
    together = []
    for one in healed:
        earlier = known.get(_key(one))
        if earlier is not None:
            if one.before is None:
                one = replace(one, before=earlier.before, before_stderr=earlier.before_stderr)
            if one.pruned is None:  # healed twice, the first number is the pruned model's
                one = replace(one, pruned=earlier.after if earlier.pruned is None else earlier.pruned)
        together.append(one)
    return tuple(together)


def _key(evaluation: EvaluationRecord) -> tuple[str, str, str]:
    return evaluation.metric, evaluation.dataset, evaluation.protocol
