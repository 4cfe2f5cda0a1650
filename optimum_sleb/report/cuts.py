"""Shallower cuts of one search, and the compensation that is computed anew for them."""

from dataclasses import replace
from typing import Any, TypeAlias

from ..config import width_of_beam
from ..errors import ReportError
from .records import CompensationRecord, StepRecord

# `PruningReport` stands on this module, which thus cannot import it for its name.
Report: TypeAlias = Any


def cut_of(report: Report, num_removed: int) -> Report:
    """Return what `PruningReport.cut` does."""
    if not 1 <= num_removed <= len(report.removed_blocks):
        raise ReportError(
            f"The report tells of {len(report.removed_blocks)} removals, so a cut must remove between 1 and "
            f"{len(report.removed_blocks)} blocks; got {num_removed}."
        )
    earlier = len(report.removed_blocks) - len(report.steps)
    if report.previous is not None and num_removed <= earlier:
        return cut_of(report.previous, num_removed)
    depth = num_removed - earlier
    depths = report.depths[:depth]
    changes: dict[str, Any] = {"depths": depths, "steps": report.steps[:depth]}
    if depth < len(report.steps):
        if depths:
            changes["steps"] = tuple(map(StepRecord, depths[-1].removed))
        if report.search is not None:  # which measured that of its last depth alone
            changes["search"] = replace(report.search, perplexity_after=None)
        changes["target"] = None
    shallower = replace(report, compensation=None, healing=(), **changes)
    return replace(shallower, size_on_disk=None, weights_sha256=None, evaluations=(), speeds=())


def sets_to_compensate(report: Report) -> tuple[tuple[int, ...], ...]:
    """Return the sets of blocks that a search to this depth compensates, of which the held-back loss chooses one:
    what a greedy search removes, or the leading sets of the depth."""
    if not report.depths:
        return (report.removed_blocks,)
    sets = report.depths[-1].sets
    compensated = tuple(one.removed for one in sets if one.held_back_loss is not None)
    return compensated or tuple(one.removed for one in sets[: width_of_beam(report.recipe)])


def compensated_again(
    report: Report, loss: float, record: CompensationRecord, held_back: dict[tuple[int, ...], float]
) -> Report:
    """Return the report with another compensation of its last depth, the calibration loss that this gives, and what
    each of the sets came to on the held-back windows: the one with the lowest is removed."""
    if not report.depths:
        *steps, step = report.steps
        return replace(report, compensation=record, steps=(*steps, replace(step, compensated_loss=loss)))
    *shallower, last = report.depths
    last = replace(
        last,
        removed=min(held_back, key=held_back.__getitem__),
        sets=tuple(replace(one, held_back_loss=held_back.get(one.removed)) for one in last.sets),
        compensated_loss=loss,
    )
    steps = tuple(map(StepRecord, last.removed))
    return replace(report, compensation=record, depths=(*shallower, last), steps=steps)
