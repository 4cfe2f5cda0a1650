"""The plot of the losses of a search."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..blocks.criterion import unit_of
from ..config import as_ranges
from ..errors import ReportError
from .plot_style import BLUE, BROWN, INK, ORANGE, label_removed_blocks, new_figure, style_axes, use_log_scale
from .stack_plot import draw_stack, named_as_protected

# `PruningReport` stands on this module, which thus cannot import it for its name.
Report: TypeAlias = Any

# Room above the curve for losing candidates, as a share of the curve's own (logarithmic) height.
_HEADROOM = 0.8
# Of the name of a criterion.
_MOST_LETTERS = 40


def plot_losses(report: Report) -> Figure:
    """Plot perplexity against blocks removed, and the losing candidates of each step or sets of each depth.
    Where the recipe names blocks, a strip below shows the stack, with the protected ones hatched.
    """
    after = report._after if report.steps and report.search is not None else None
    if after is None:
        raise ReportError("The run removed known blocks, without a search, so there is no curve to draw.")
    if not math.isfinite(after):
        raise ReportError("The perplexity after the run is infinite, so there is no curve to draw; see summary().")
    figure = new_figure(6, 4)
    if protected := named_as_protected(report.recipe, report.blocks_before):
        axes, strip = figure.subplots(2, height_ratios=(9, 1))
        draw_stack(strip, report.original_num_blocks, report.removed_blocks, protected)
    else:
        axes = figure.add_subplot()
    first = len(report.removed_blocks) - len(report.steps)
    curve = [report.value_of(loss) for loss in (report.search.loss_before, *report._curve)]
    points = [
        (first + number, value) for number, value in enumerate(curve) if value is not None and math.isfinite(value)
    ]
    lowest, highest = (_limits if report.criterion is None else _linear_limits)([value for _, value in points])
    width = min(14, 180 / len(report.steps))  # in points, so that the dashes of neighbours do not touch
    for number, lost in enumerate(_lost(report), start=first + 1):
        _draw_losing(axes, number, [report.value_of(loss) for loss in lost], highest, width)
    numbers, values = zip(*points, strict=True)
    axes.plot(numbers, values, color=BLUE, marker="o", markersize=6, linewidth=2, label="the model", zorder=3)
    axes.set_ylim(lowest, highest)
    if not report.depths:
        _name_blocks(axes, [step.block for step in report.steps], dict(points), first)
    if report.criterion is None:
        use_log_scale(axes, (1, 1.5, 2, 3, 4, 5, 7))
    style_axes(axes, _label(report.metric, unit_of(report.criterion)))
    axes.yaxis.label.set_parse_math(False)  # a name is no formula
    label_removed_blocks(axes)
    if report.depths:
        axes.set_xlabel(f"decoder blocks removed; the last set is {as_ranges(report.depths[-1].removed)}")
    _add_legend(figure, axes, "sets" if report.depths else "candidates")
    return figure


def _lost(report: Report) -> list[list[float]]:
    """Return the losses of what lost: of each depth the other sets, or of each step the other candidates."""
    if report.depths:
        return [[one.loss for one in depth.sets if one.removed != depth.removed] for depth in report.depths]
    return [[loss for block, loss in step.candidate_losses.items() if block != step.block] for step in report.steps]


def _label(metric: str, unit: str) -> str:
    """Return what the y-axis shows, in two lines where it has a unit."""
    name = " ".join(metric.split())[:_MOST_LETTERS]
    return f"{name}\non the calibration text, {unit}" if unit else f"{name} on the calibration text"


def _limits(curve: list[float]) -> tuple[float, float]:
    """Return the ends of the logarithmic axis: the curve fills it, and candidates far above do not stretch it."""
    low, high = math.log(min(curve)), math.log(max(curve))
    span = max(high - low, 0.1)
    return math.exp(low - 0.1 * span), math.exp(high + _HEADROOM * span)


def _linear_limits(curve: list[float]) -> tuple[float, float]:
    """Return the ends of the axis of a criterion, which may be negative."""
    span = (max(curve) - min(curve)) or 1.0
    return min(curve) - 0.1 * span, max(curve) + _HEADROOM * span


def _draw_losing(axes: Axes, number: int, perplexities: Sequence[float], highest: float, width: float) -> None:
    """Draw a dash for each losing candidate of a step, and above the plot the number of those that do not fit."""
    inside = [value for value in perplexities if value <= highest]
    axes.plot([number] * len(inside), inside, linestyle="", marker="_", markersize=width, color=ORANGE, alpha=0.8)
    if above := len(perplexities) - len(inside):
        axes.annotate(
            f"{above}\n▲",
            (number, highest),
            xytext=(0, 1),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=BROWN,
            fontsize=8,
            linespacing=1.0,
        )


def _name_blocks(axes: Axes, blocks: Sequence[int], points: dict[int, float], first: int) -> None:
    """Write the number of the block that a step took beside its point."""
    size = max(5.0, min(9.0, 150 / len(blocks)))
    for number, block in enumerate(blocks, start=first + 1):
        if number in points:
            axes.annotate(
                str(block),
                (number, points[number]),
                xytext=(4, -4 - size),
                textcoords="offset points",
                color=BLUE,
                fontsize=size,
            )


def _add_legend(figure: Figure, axes: Axes, losers: str) -> None:
    # Empty lines, because the dashes and the triangles of the plot differ in size and are not lines at all.
    axes.plot([], [], linestyle="", marker="_", markersize=14, color=ORANGE, label=f"{losers} that lost")
    axes.plot([], [], linestyle="", marker="^", markersize=5, color=BROWN, label="and how many lie higher")
    figure.legend(frameon=False, fontsize=9.5, labelcolor=INK, loc="outside upper left", ncols=3)
