"""Measurements of a finished model, written into its report and its card."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ..card.base_card import inherited_from
from ..card.card import CARD_FILE_NAME, render_card
from ..evaluation.perplexity import Perplexity
from ..evaluation.protocol import paper_scores
from ..evaluation.scores import Score, record_of
from ..report.records import EvaluationRecord, SpeedRecord
from ..report.report import REPORT_FILE_NAME, PruningReport
from .records import check_records


def perplexity_record(pruned: Perplexity, dense: Perplexity | None = None) -> EvaluationRecord:
    """Return the perplexities of the pruned and the dense model as one measurement for the report.

    Raise ConfigError if they were measured by different protocols.
    """
    return record_of(pruned.score(), None if dense is None else dense.score())


def record_scores(pruned: Sequence[Score], dense: Sequence[Score] | None = None) -> list[EvaluationRecord]:
    """Return a measurement for each paper score of the pruned model, with the dense model's score where given.

    Raise ConfigError if the two were measured by different protocols.
    """
    others = {(score.task, score.metric): score for score in paper_scores(dense or ())}
    return [record_of(score, others.get((score.task, score.metric))) for score in paper_scores(pruned)]


def record_evaluations(
    directory: str | Path, evaluations: Sequence[EvaluationRecord] = (), speeds: Sequence[SpeedRecord] = ()
) -> PruningReport:
    """Write measurements into the report and the card of a saved model, and return the new report.

    A measurement replaces the earlier one with the same protocol. The card is rendered again.
    """
    folder = Path(directory)
    report = check_records(folder)
    known = {_key(one): one for one in report.evaluations}
    for one in evaluations:
        earlier = known.get(_key(one))
        # The number before healing cannot be measured again, so keep it.
        known[_key(one)] = replace(one, pruned=earlier.pruned) if earlier and one.pruned is None else one
    fast = {(one.scenario, one.protocol): one for one in (*report.speeds, *speeds)}
    report = replace(report, evaluations=tuple(known.values()), speeds=tuple(fast.values()))
    # The existing card holds licence and language, so the Hub need not be asked again.
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
    """Return the healed model's measurements, with the numbers before healing where the protocol is the same.

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
            if one.pruned is None:  # healed twice: the first number is the pruned model's
                one = replace(one, pruned=earlier.after if earlier.pruned is None else earlier.pruned)
        together.append(one)
    return tuple(together)


def _key(evaluation: EvaluationRecord) -> tuple[str, str, str]:
    return evaluation.metric, evaluation.dataset, evaluation.protocol
