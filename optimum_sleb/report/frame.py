"""The losses of a search as a table: a row for each step and candidate, or for each depth and set."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias

from ..blocks.losses import perplexity_of
from ..config import block_numbers
from .depths import DepthRecord
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
# Where a run searched over sets, which are no single block.
_COLUMNS_WITH_SETS = {**_COLUMNS, "block": "Int64", "blocks": "object", "held_back_loss": "float64"}

Row: TypeAlias = dict[str, Any]
Run: TypeAlias = tuple[tuple[StepRecord, ...], tuple[DepthRecord, ...], CalibrationRecord | None, str | None]


def losses_frame(runs: Iterable[Run]) -> "DataFrame":
    """Return the table of several runs: of each its steps, its depths if it searched over sets, its calibration text
    and its criterion, if of its own. The losses of such a criterion are no perplexities."""
    import pandas as pd

    rows: list[Row] = []
    numbers = count(1)  # over all runs
    columns = _COLUMNS
    for run, (steps, depths, calibration, criterion) in enumerate(runs, start=1):
        columns = _COLUMNS_WITH_SETS if depths else columns
        removed = [step.block for step in steps]
        of_steps = [_rows_of_step(step, removed[:done], calibration) for done, step in enumerate(steps)]
        of_depths = [_rows_of_depth(depth, calibration) for depth in depths]
        for part, number in zip(of_depths or of_steps, numbers, strict=False):
            for row in part:
                perplexity = None
                if row["loss"] is not None and calibration is not None and criterion is None:
                    perplexity = perplexity_of(row["loss"], calibration.num_counted)
                rows.append({"run": run, "step": number, "perplexity": perplexity, **row})
    return pd.DataFrame(rows, columns=list(columns)).astype(columns)


def _rows_of_depth(depth: DepthRecord, calibration: CalibrationRecord | None) -> Iterator[Row]:
    """Yield a row for each set of a depth, the lowest loss first, then for those that cannot go."""
    for one in depth.sets:
        is_best = one.removed == depth.removed
        yield {
            "blocks": one.removed,
            "status": "removed" if is_best else "kept",
            "loss": one.loss,
            "compensated_loss": depth.compensated_loss if is_best else None,
            "held_back_loss": one.held_back_loss,
            "windows": None if calibration is None else calibration.num_windows,
        }
    for text, reason in depth.refused.items():
        yield {"blocks": block_numbers(text, "refused"), "status": "barred", "loss": None, "reason": reason}


def _rows_of_step(step: StepRecord, gone: Sequence[int], calibration: CalibrationRecord | None) -> Iterator[Row]:
    """Yield a row for the removed block and each other candidate of a step, by their numbers."""
    blocks = {step.block, *step.candidate_losses, *step.barred_blocks, *step.dropped_blocks, *step.non_finite_blocks}
    for block in sorted(blocks):
        loss = step.candidate_losses.get(block)
        measured_on = {**step.non_finite_blocks, **step.dropped_blocks}.get(block)
        if measured_on is None and loss is not None and calibration is not None:
            measured_on = calibration.num_windows
        yield {
            "block": block,
            "blocks": tuple(sorted((*gone, block))),
            "status": _status(step, block),
            "loss": loss,
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
