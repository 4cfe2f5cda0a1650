"""The losses of a search as a table: a row for each step and candidate."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any

from ..blocks.losses import perplexity_of
from .records import CalibrationRecord, StepRecord

if TYPE_CHECKING:
    from pandas import DataFrame

_COLUMNS = {
    "run": "int64",
    "step": "int64",
    "block": "int64",
    "status": "str",
    "loss": "float64",
    "perplexity": "float64",
    "compensated_loss": "float64",
    "windows": "Int64",
    "reason": "object",
}


def losses_frame(runs: Iterable[tuple[tuple[StepRecord, ...], CalibrationRecord | None, str | None]]) -> "DataFrame":
    """Return the table of the steps of several runs, each with its calibration text and its criterion, if of its own.
    The losses of such a criterion are no perplexities."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    numbers = count(1)  # over all runs
    for run, (steps, calibration, criterion) in enumerate(runs, start=1):
        for step, number in zip(steps, numbers, strict=False):
            rows += [{"run": run, "step": number, **row} for row in _rows_of(step, calibration, criterion)]
    return pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS)


def _rows_of(
    step: StepRecord, calibration: CalibrationRecord | None, criterion: str | None
) -> Iterator[dict[str, Any]]:
    """Yield a row for the removed block and each other candidate of a step, by their numbers."""
    blocks = {step.block, *step.candidate_losses, *step.barred_blocks, *step.dropped_blocks, *step.non_finite_blocks}
    for block in sorted(blocks):
        loss = step.candidate_losses.get(block)
        perplexity = None
        if loss is not None and calibration is not None and criterion is None:
            perplexity = perplexity_of(loss, calibration.num_counted)
        measured_on = {**step.non_finite_blocks, **step.dropped_blocks}.get(block)
        if measured_on is None and loss is not None and calibration is not None:
            measured_on = calibration.num_windows
        yield {
            "block": block,
            "status": _status(step, block),
            "loss": loss,
            "perplexity": perplexity,
            "compensated_loss": step.compensated_loss if block == step.block else None,
            "windows": measured_on,
            "reason": step.barred_blocks.get(block),
        }


def _status(step: StepRecord, block: int) -> str:
    if block == step.block:
        return "removed"
    groups: dict[str, Mapping[int, object]] = {
        "barred": step.barred_blocks,
        "dropped": step.dropped_blocks,
        "non_finite": step.non_finite_blocks,
    }
    return next((status for status, blocks in groups.items() if block in blocks), "kept")
