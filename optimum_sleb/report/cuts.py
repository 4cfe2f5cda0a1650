"""Shallower cuts of one search, and the compensation that is computed anew for them."""

from dataclasses import replace
from typing import Any, TypeAlias

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


def compensated_again(report: Report, loss: float, record: CompensationRecord) -> Report:
    """Return the report with another compensation of its last depth, and the calibration loss that this gives."""
    part = "depths" if report.depths else "steps"
    *earlier, last = getattr(report, part)
    return replace(report, compensation=record, **{part: (*earlier, replace(last, compensated_loss=loss))})
