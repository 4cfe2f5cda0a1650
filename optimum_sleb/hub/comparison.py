"""The table of a card: what the dense model was, what the pruned one is, and how each number was measured."""

from dataclasses import dataclass

from ..records import CalibrationRecord, EvaluationRecord
from ..report import PruningReport
from .words import dataset_name, is_finite, with_error


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: What was measured.
        dense: The dense model's number; empty where it was not measured.
        pruned: The pruned model's number.
        protocol: How both were measured; empty where there is nothing to say.
    """

    name: str
    dense: str
    pruned: str
    protocol: str = ""


def comparison_rows(report: PruningReport) -> list[Row]:
    """The table of a card. Only what was measured appears.

    Args:
        report: The report of the run.

    Returns:
        The rows, in the order of the table.

    Example:
        ```python
        comparison_rows(pruner.report)[0]  # Row("decoder blocks", dense="30", pruned="27")
        ```
    """
    dense = dense_run(report)
    rows = [
        Row("decoder blocks", str(report.original_num_blocks), str(len(report.blocks_after))),
        Row("parameters", f"{dense.parameters_before:,}" if dense else "", f"{report.parameters_after:,}"),
    ]
    if report.weight_bytes_after is not None:
        before = dense.weight_bytes_before if dense else None
        after = _megabytes(report.weight_bytes_after)
        rows.append(Row("size of the weights", _megabytes(before), after, "sum over all tensors"))
    if report.size_on_disk is not None:
        rows.append(Row("size on disk", "", _megabytes(report.size_on_disk), "files of weights in this repository"))
    calibration = calibration_evaluation(report)
    evaluations = (*report.evaluations, *([calibration] if calibration else []))
    return rows + [_evaluation_row(evaluation) for evaluation in evaluations]


def calibration_evaluation(report: PruningReport) -> EvaluationRecord | None:
    """The perplexity on the calibration text, as one measurement among others.

    Args:
        report: The report of the run.

    Returns:
        The measurement, or `None` where the run did not search, or its losses were too large for a perplexity.

    Example:
        ```python
        calibration_evaluation(pruner.report).after
        ```
    """
    after, record = report.perplexity_after, report.calibration
    if record is None or report.search is None or after is None or not is_finite(after):
        return None
    return EvaluationRecord(
        metric="perplexity",
        dataset=record.source,
        protocol=f"calibration text, on which the blocks were chosen: {windows_of(record)}, in {report.search.dtype}",
        after=after,
        before=_dense_calibration_perplexity(report),
    )


def dense_run(report: PruningReport) -> PruningReport | None:
    """The report of the run that began with the dense model.

    Args:
        report: The report of the last run.

    Returns:
        That report, or `None` where the model had been pruned before, but its report was lost.

    Example:
        ```python
        dense_run(pruner.report).parameters_before
        ```
    """
    first = report.first_run
    return first if len(first.blocks_before) == report.original_num_blocks else None


def windows_of(record: CalibrationRecord) -> str:
    """Number and length of the calibration windows, in words.

    Args:
        record: The calibration text.

    Returns:
        The words.

    Example:
        >>> windows_of(CalibrationRecord("c4", 2, 40, 20, False, "ab"))
        '2 windows of 20 tokens'
    """
    amount = f"{record.num_windows:,} window{'s' if record.num_windows != 1 else ''}"
    tokens = f" of {record.window_length:,} tokens" if record.window_length else f", {record.num_tokens:,} tokens"
    labels = "" if record.num_labels is None else f", of which {record.num_labels:,} carry labels"
    return f"{amount}{tokens}{', each with a BOS token' if record.bos_per_window else ''}{labels}"


def _dense_calibration_perplexity(report: PruningReport) -> float | None:
    dense = dense_run(report)
    if dense is None or dense.calibration is None or report.calibration is None:
        return None
    # Over several runs, the perplexity before the first one compares only if it was measured on the same tokens.
    same_tokens = dense.calibration.fingerprint == report.calibration.fingerprint
    return dense.perplexity_before if same_tokens and is_finite(dense.perplexity_before) else None


def _evaluation_row(evaluation: EvaluationRecord) -> Row:
    name = f"{evaluation.metric}, {dataset_name(evaluation.dataset)}"
    before = with_error(evaluation.before, evaluation.before_stderr)
    return Row(name, before, with_error(evaluation.after, evaluation.after_stderr), evaluation.protocol)


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:,.1f} MB"
