"""The summary of a report: a short table, and what else a reader should know."""

from typing import Any, TypeAlias

from ..blocks.criterion import KL, unit_of
from ..config import limits_in_words
from ..runtime.table import text_table
from .depths import in_words

# `PruningReport` stands on this module, which thus cannot import it for its name.
Report: TypeAlias = Any


def summary_of(report: Report) -> str:
    """Return the lines of `PruningReport.summary`."""
    rows = [
        ("", "before", "after"),
        ("blocks", str(len(report.blocks_before)), str(len(report.blocks_after))),
        ("parameters", f"{report.parameters_before / 1e6:,.1f} M", f"{report.parameters_after / 1e6:,.1f} M"),
    ]
    rows += _values(report)
    lines = [text_table(rows, num_left=1, widths=(24, 12, 12), gap="")]
    if report.calibration is not None and report.calibration.columns not in (None, "text"):
        lines.append(f"calibrated on {report.calibration.columns}")
    if report.criterion:
        lines.append(f"criterion: {_criterion_in_words(report)}; lower is better")
    if report.search is not None and report.search.stopped_early:
        lines.append("stopped early, by a callback")
    lines += _removed(report)
    if report.recipe is not None and (limits := limits_in_words(report.recipe)):
        lines.append(limits)
    if report.target is not None:
        lines.append(f"target {report.target.summary()}")
    lines += [f"then healed: {one.method} on {one.dataset}, {one.steps:,} steps" for one in report.healing]
    if report.closest_decision is not None:
        lines.append(f"closest decision: {_closest(report)} higher")
    non_finite = dict.fromkeys(str(block) for step in report.steps for block in step.non_finite_blocks)
    if non_finite:
        lines.append(f"the loss was NaN or infinite without block {', '.join(non_finite)}, which thus stayed")
    if report.search is not None and report.search.offload is not None:
        lines.append(f"blocks came to {report.search.device} one at a time: {report.search.offload}")
    if report.search is not None and report.barred_blocks:
        num_tried = len(report.steps[0].candidate_losses) if report.steps else 0
        if report.depths:
            num_tried = report.depths[0].num_measured
        block, reason = next(iter(report.barred_blocks.items()))
        possible = f"{num_tried} of {len(report.blocks_before)} blocks could be removed"
        lines.append(f"{possible}; not, for example, block {block}: {reason}")
    return "\n".join(lines)


def _values(report: Report) -> list[tuple[str, str, str]]:
    """Return the rows of what was measured on the calibration text: by another criterion, and the perplexity."""
    values = [
        (_short_metric(report), report.criterion_before, report.criterion_after, _style(report)),
        ("perplexity", report.perplexity_before, report.perplexity_after, ".2f"),
    ]
    return [
        (f"calibration {name}", f"{before:{style}}", f"{after:{style}}")
        for name, before, after, style in values
        if before is not None and after is not None
    ]


def _removed(report: Report) -> list[str]:
    """Return what was removed: in order, or as a set and with the best set of each depth."""
    if not report.depths:
        return [f"removed, in order: {' '.join(str(step.block) for step in report.steps) or 'none'}"]
    last = report.depths[-1]
    rows = [("depth", "best set", "sets", _short_metric(report))]
    for number, depth in enumerate(report.depths, start=1):
        value = report.value_of(depth.final_loss)
        shown = "" if value is None else f"{value:{_style(report)}}"
        shown += "" if depth.compensated_loss is None else ", compensated"
        rows.append((str(number), in_words(depth.removed), str(depth.num_measured), shown))
    found = (
        f"the best of {last.num_measured:,} sets of {len(last.removed)} block{'s' if len(last.removed) > 1 else ''}"
    )
    lines = [f"removed: {in_words(last.removed)}, {found}", *text_table(rows, num_left=4).splitlines()]
    if num_non_finite := sum(depth.num_non_finite for depth in report.depths):
        lines.append(f"the loss was NaN or infinite without each of {num_non_finite} sets, which thus stayed")
    refused = {text: reason for depth in report.depths for text, reason in depth.refused.items()}
    if refused:
        text, reason = next(iter(refused.items()))
        lines.append(f"{len(refused)} better sets cannot go together, for example {text}: {reason}")
    return lines


def _closest(report: Report) -> str:
    removed, margin = report.closest_decision
    if not report.depths:
        return f"block {removed}, the next best had a loss {margin:.2%}"
    loss = "held-back loss" if report.depths[len(removed) - 1].decided_by_held_back else "loss"
    return f"the set {in_words(removed)}, the next best had a {loss} {margin:.2%}"


def _short_metric(report: Report) -> str:
    return {None: "perplexity", KL: "KL"}.get(report.criterion, "criterion")


def _style(report: Report) -> str:
    return {None: ".2f", KL: "z.4f"}.get(report.criterion, ".4g")


def _criterion_in_words(report: Report) -> str:
    if report.criterion == KL:
        return f"{report.metric}, in {unit_of(KL)}, the mean over predictions"
    return f"{report.criterion}, the mean loss of a window"
