"""Whether the parts of a report that was read tell one story."""

from typing import Any, TypeAlias

from ..config import as_ranges, block_numbers
from .depths import DepthRecord
from .records import StepRecord

# `PruningReport` stands on this module, which thus cannot import it for its name.
Report: TypeAlias = Any


def check_run(report: Report) -> None:
    """Raise `ValueError` unless the last run of a report fits the one before, and its parts fit each other."""
    _check_blocks(report)
    _check_losses(report)
    if report.depths:
        _check_depths(report)


def _check_blocks(report: Report) -> None:
    """Refuse blocks that were not there, or are removed twice."""
    before = report.blocks_before if report.previous is None else report.previous.blocks_after
    removed = [step.block for step in report.steps]
    all_blocks = range(report.original_num_blocks)
    if report.blocks_before != before or list(before) != sorted(set(before) & set(all_blocks)):
        raise ValueError(f"blocks_before are not blocks that were left of {report.original_num_blocks}.")
    if len(set(removed)) < len(removed) or not set(removed) < set(before):
        raise ValueError(f"the steps remove {removed[:20]}, which must be some of blocks_before, each once.")


def _check_losses(report: Report) -> None:
    """Refuse a negative loss by cross-entropy, which has none."""
    losses = [] if report.search is None else [report.search.loss_before]
    losses += [loss for step in report.steps for loss in step.candidate_losses.values()]
    losses += [one.loss for depth in report.depths for one in depth.sets]
    losses += [one.compensated_loss for one in (*report.steps, *report.depths) if one.compensated_loss]
    if report.criterion is None and (lowest := min(losses, default=0.0)) < 0:
        raise ValueError(f"a loss of search, steps or depths must be at least 0; got {lowest}.")


def _check_depths(report: Report) -> None:
    """Refuse depths that do not follow each other from one block up to what the steps remove."""
    for number, depth in enumerate(report.depths, start=1):
        _check_sets(depth, number, set(report.blocks_before))
    steps = tuple(map(StepRecord, report.depths[-1].removed))
    if report.steps != steps:
        removed = as_ranges(report.depths[-1].removed)
        raise ValueError(f"the steps must be bare removals of the last depth's blocks ({removed}), ascending.")


def _check_sets(depth: DepthRecord, size: int, blocks: set[int]) -> None:
    """Refuse sets of another size or of other blocks, and a best set that is not among them."""
    of_depth = f"of depths[{size - 1}]"
    sets = [one.removed for one in depth.sets]
    for removed in (*sets, *(block_numbers(text, f"refused {of_depth}") for text in depth.refused)):
        if len(removed) != size or list(removed) != sorted(set(removed) & blocks):
            raise ValueError(f"a set {of_depth} must be {size} of blocks_before, ascending; got {list(removed)[:20]}.")
    if len(set(sets)) < len(sets) or depth.removed not in sets:
        raise ValueError(f"the sets {of_depth} must differ, and the best one be among them; got {depth.removed[:20]}.")
    losses = [one.loss for one in depth.sets]
    if losses != sorted(losses):
        raise ValueError(f"the sets {of_depth} must stand with the lowest loss first.")
