"""The summary of a report: a short table, and what else a reader should know."""

from typing import Any, TypeAlias

from ..config import limits_in_words
from ..runtime.table import text_table

# `PruningReport` stands on this module, which thus cannot import it for its name.
Report: TypeAlias = Any


def summary_of(report: Report) -> str:
    """Return the lines of `PruningReport.summary`."""
    rows = [
        ("", "before", "after"),
        ("blocks", str(len(report.blocks_before)), str(len(report.blocks_after))),
        ("parameters", f"{report.parameters_before / 1e6:,.1f} M", f"{report.parameters_after / 1e6:,.1f} M"),
    ]
    if report._before is not None and report._after is not None:
        name, style = ("criterion", ".4g") if report.criterion else ("perplexity", ".2f")
        rows.append((f"calibration {name}", f"{report._before:{style}}", f"{report._after:{style}}"))
    lines = [text_table(rows, num_left=1, widths=(24, 12, 12), gap="")]
    if report.calibration is not None and report.calibration.columns not in (None, "text"):
        lines.append(f"calibrated on {report.calibration.columns}")
    if report.criterion:
        lines.append(f"criterion: {report.criterion}, the mean loss of a window; lower is better")
    if report.search is not None and report.search.stopped_early:
        lines.append("stopped early, by a callback")
    lines.append(f"removed, in order: {' '.join(str(step.block) for step in report.steps) or 'none'}")
    if report.recipe is not None and (limits := limits_in_words(report.recipe)):
        lines.append(limits)
    if report.target is not None:
        lines.append(f"target {report.target.summary()}")
    lines += [f"then healed: {one.method} on {one.dataset}, {one.steps:,} steps" for one in report.healing]
    if report.closest_decision is not None:
        block, margin = report.closest_decision
        lines.append(f"closest decision: block {block}, the next best had a loss {margin:.2%} higher")
    non_finite = dict.fromkeys(str(block) for step in report.steps for block in step.non_finite_blocks)
    if non_finite:
        lines.append(f"the loss was NaN or infinite without block {', '.join(non_finite)}, which thus stayed")
    if report.search is not None and report.search.offload is not None:
        lines.append(f"blocks came to {report.search.device} one at a time: {report.search.offload}")
    if report.search is not None and report.barred_blocks:
        num_tried = len(report.steps[0].candidate_losses) if report.steps else 0
        block, reason = next(iter(report.barred_blocks.items()))
        possible = f"{num_tried} of {len(report.blocks_before)} blocks could be removed"
        lines.append(f"{possible}; not, for example, block {block}: {reason}")
    return "\n".join(lines)
