"""The table of a card: numbers of the dense and the pruned model, and how each was measured."""

from dataclasses import dataclass, replace

from ..blocks.criterion import KL, unit_of
from ..report.records import CalibrationRecord, EvaluationRecord, SpeedRecord
from ..report.report import PruningReport
from .format import format_number, format_with_stderr, is_finite_number, public_dataset_name


@dataclass(frozen=True)
class ComparisonRow:
    """One line of the table; a number that was not measured is an empty string."""

    name: str  # the metric
    dense: str
    pruned: str  # of a healed model: the number before healing
    protocol: str = ""  # how the numbers were measured
    healed: str = ""  # empty where the model was not fine-tuned


def comparison_rows(report: PruningReport) -> list[ComparisonRow]:
    """Return the rows of the card's table, in order, with measured numbers only."""
    dense = run_from_dense_model(report)
    blocks, parameters = str(len(report.blocks_after)), f"{report.parameters_after:,}"
    rows = [
        ComparisonRow("decoder blocks", str(report.original_num_blocks), blocks, healed=blocks),
        ComparisonRow("parameters", f"{dense.parameters_before:,}" if dense else "", parameters, healed=parameters),
    ]
    if report.weight_bytes_after is not None:
        before = _megabytes(dense.weight_bytes_before if dense else None)
        after = _megabytes(report.weight_bytes_after)
        rows.append(_finished(report, "size of the weights", before, after, "sum over all tensors"))
    if report.size_on_disk is not None:
        size = _megabytes(report.size_on_disk)
        rows.append(_finished(report, "size on disk", "", size, "files of weights in this repository"))
    rows += [row for speed in report.speeds for row in _speed_rows(report, speed)]
    rows += [_evaluation_row(report, evaluation) for evaluation in report.evaluations]
    for calibration in (calibration_evaluation(report), _perplexity(report) if report.criterion else None):
        if calibration is not None:
            before, after = format_number(calibration.before), format_number(calibration.after)
            rows.append(ComparisonRow(_name_of(calibration), before, after, calibration.protocol))
    return rows


def calibration_evaluation(report: PruningReport) -> EvaluationRecord | None:
    """Return what the search lowered (the perplexity, or the mean of the criterion) on the calibration text, as a
    measurement. `None` without a search, or if it is not finite.
    """
    if report.criterion is None:
        return _perplexity(report)
    if report.criterion != KL:
        return _on_calibration(report, f"mean of {report.criterion}", _dense_criterion(report), report.criterion_after)
    # A later run measures the divergence from the model that it began with, which is not the dense one.
    before = report.criterion_before if run_from_dense_model(report) is report else None
    unit = f"; in {unit_of(KL)}, mean over predictions"
    return _on_calibration(report, report.metric, before, report.criterion_after, unit)


def run_from_dense_model(report: PruningReport) -> PruningReport | None:
    """Return the report of the run that began with the dense model; `None` where that report was lost."""
    first = report.first_run
    return first if len(first.blocks_before) == report.original_num_blocks else None


def describe_windows(record: CalibrationRecord) -> str:
    """Return number and length of the calibration windows, in words.

    >>> describe_windows(CalibrationRecord("c4", 2, 40, 20, False, "ab"))
    '2 windows of 20 tokens'
    """
    amount = f"{record.num_windows:,} window{'s' if record.num_windows != 1 else ''}"
    tokens = f" of {record.window_length:,} tokens" if record.window_length else f", {record.num_tokens:,} tokens"
    labels = "" if record.num_labels is None else f", of which {record.num_labels:,} carry labels"
    return f"{amount}{tokens}{', each with a BOS token' if record.bos_per_window else ''}{labels}"


def _perplexity(report: PruningReport) -> EvaluationRecord | None:
    dense = _dense_run_on_same_text(report)
    return _on_calibration(
        report, "perplexity", None if dense is None else dense.perplexity_before, report.perplexity_after
    )


def _on_calibration(
    report: PruningReport, metric: str, before: float | None, after: float | None, unit: str = ""
) -> EvaluationRecord | None:
    """Return a measurement on the calibration text; `None` where it was not made or is not finite."""
    record = report.calibration
    if record is None or report.search is None or after is None or not is_finite_number(after):
        return None
    chosen = "calibration text, on which the blocks were chosen"
    return EvaluationRecord(
        metric=metric,
        dataset=record.source,
        protocol=f"{chosen}: {describe_windows(record)}, in {report.search.dtype}{unit}",
        after=after,
        before=before if is_finite_number(before) else None,
    )


def _dense_criterion(report: PruningReport) -> float | None:
    dense = _dense_run_on_same_text(report)
    return dense.criterion_before if dense is not None and dense.criterion == report.criterion else None


def _dense_run_on_same_text(report: PruningReport) -> PruningReport | None:
    """Return the run that began with the dense model, if it measured on the same tokens; others are not comparable."""
    dense = run_from_dense_model(report)
    if dense is None or dense.calibration is None or report.calibration is None:
        return None
    return dense if dense.calibration.fingerprint == report.calibration.fingerprint else None


def _finished(report: PruningReport, name: str, dense: str, finished: str, protocol: str) -> ComparisonRow:
    """Return a row whose second number belongs to the finished model: the healed one, or else the pruned one."""
    if report.healing:
        return ComparisonRow(name, dense, "", protocol, finished)
    return ComparisonRow(name, dense, finished, protocol)


def _evaluation_row(report: PruningReport, evaluation: EvaluationRecord) -> ComparisonRow:
    dense = format_with_stderr(evaluation.before, evaluation.before_stderr)
    after = format_with_stderr(evaluation.after, evaluation.after_stderr)
    row = _finished(report, _name_of(evaluation), dense, after, evaluation.protocol)
    return replace(row, pruned=format_number(evaluation.pruned)) if report.healing else row


def _name_of(evaluation: EvaluationRecord) -> str:
    return f"{evaluation.metric}, {public_dataset_name(evaluation.dataset)}"


def _speed_rows(report: PruningReport, speed: SpeedRecord) -> list[ComparisonRow]:
    name = "prompt latency" if speed.scenario == "prompt" else f"{speed.scenario} throughput"
    faster = "" if speed.speedup is None else f", {speed.speedup:.2f} times as fast"
    before, after = format_number(speed.before), format_number(speed.after)
    rows = [_finished(report, f"{name}, {speed.unit}", before, after, speed.protocol + faster)]
    if speed.after_peak_bytes is not None:
        before, after = _megabytes(speed.before_peak_bytes), _megabytes(speed.after_peak_bytes)
        rows.append(_finished(report, f"memory at most, {speed.scenario}", before, after, speed.protocol))
    return rows


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:,.1f} MB"
