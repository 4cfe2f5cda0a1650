"""Measurements of a finished model, written into its report and its card."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..card.base_card import read_own_card
from ..errors import PushError
from ..evaluation.perplexity import Perplexity
from ..evaluation.protocol import paper_scores
from ..evaluation.scores import Score, record_of
from ..report.folder import lock_folder, replace_files
from ..report.records import EvaluationRecord, SpeedRecord
from ..report.report import PruningReport
from .model_files import check_model_folder, write_report_and_card


def perplexity_record(pruned: Perplexity, dense: Perplexity | None = None) -> EvaluationRecord:
    """Return the perplexities of the pruned and the dense model as one measurement for the report.

    Raise ConfigError if they were measured by different protocols.
    """
    return record_of(pruned.score(), None if dense is None else dense.score())


def evaluation_records(pruned: Sequence[Score], dense: Sequence[Score] | None = None) -> list[EvaluationRecord]:
    """Return a measurement for each paper score of the pruned model, with the dense model's score where given.

    Raise ConfigError if the two were measured by different protocols.
    """
    others = {(score.task, score.metric): score for score in paper_scores(dense or ())}
    return [record_of(score, others.get((score.task, score.metric))) for score in paper_scores(pruned)]


def add_to_report_and_card(
    directory: str | Path,
    evaluations: Sequence[EvaluationRecord] = (),
    speeds: Sequence[SpeedRecord] = (),
    *,
    weights_sha256: str | None = None,
) -> PruningReport:
    """Write measurements into the report and the card of a saved model, and return the new report.

    A measurement replaces the earlier one with the same protocol. `weights_sha256` is that of the measured weights.
    """
    with lock_folder(directory) as folder:
        report = check_model_folder(folder)
        if weights_sha256 not in (None, report.weights_sha256):
            raise PushError(f"The model in {folder} was replaced while it was measured; measure the new one.")
        report = _with_measurements(report, evaluations, speeds)
        # The existing card holds licence and language, so the Hub need not be asked again.
        fields = read_own_card(str(folder))
        replace_files(folder, lambda fresh: write_report_and_card(fresh, report, folder.name, fields))
    return report


def _with_measurements(
    report: PruningReport, evaluations: Sequence[EvaluationRecord], speeds: Sequence[SpeedRecord]
) -> PruningReport:
    latest = {_measured(record): record for record in report.evaluations}
    pruned = {_measured(record): record for record in report.pruned_evaluations}
    for record in evaluations:
        earlier = latest.get(_measured(record))
        if earlier is not None and record.pruned is None:
            record = replace(record, pruned=earlier.pruned)  # the number before healing cannot be measured again
        latest[_measured(record)] = _with_earlier_numbers(record, pruned.get(_measured(record)))
    latest_speeds = {(speed.scenario, speed.protocol): speed for speed in (*report.speeds, *speeds)}
    return replace(report, evaluations=tuple(latest.values()), speeds=tuple(latest_speeds.values()))


def healed_evaluations(
    pruned: Sequence[EvaluationRecord], healed: Sequence[EvaluationRecord]
) -> tuple[EvaluationRecord, ...]:
    """Return the healed model's measurements, with the numbers before healing where the protocol is the same.

    >>> before = EvaluationRecord("perplexity", "c4", "8 windows", after=74.8, before=30.5)
    >>> one, = healed_evaluations([before], [EvaluationRecord("perplexity", "c4", "8 windows", after=41.0)])
    >>> one.before, one.pruned, one.after
    (30.5, 74.8, 41.0)
    """
    earlier = {_measured(record): record for record in pruned}
    return tuple(_with_earlier_numbers(record, earlier.get(_measured(record))) for record in healed)


def _with_earlier_numbers(healed: EvaluationRecord, earlier: EvaluationRecord | None) -> EvaluationRecord:
    if earlier is not None and healed.before is None:
        healed = replace(healed, before=earlier.before, before_stderr=earlier.before_stderr)
    if earlier is not None and healed.pruned is None:  # healed twice: the first number is the pruned model's
        healed = replace(healed, pruned=earlier.after if earlier.pruned is None else earlier.pruned)
    return healed


def _measured(record: EvaluationRecord) -> tuple[str, str, str]:
    """Return what was measured and how; two numbers compare only where this is the same."""
    return record.metric, record.dataset, record.protocol
