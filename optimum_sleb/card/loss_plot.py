"""The plot of the losses of a search, for the card."""

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from ..blocks.losses import perplexity_of
from ..errors import ReportError
from ..report.report import PruningReport
from .card import has_plot
from .format import is_finite_number

PLOT_FILE_NAME = "sleb_loss.png"

# From the Okabe-Ito palette, which colour-blind readers can tell apart; the two also differ in lightness.
_CHOSEN = "#0072B2"
_LOSING = "#D98200"
_LOSING_TEXT = "#8A5300"
_INK = "#222222"
# Room above the curve for losing candidates, as a share of the curve's own (logarithmic) height.
_HEADROOM = 0.8


def draw_losses(report: PruningReport, path: Path) -> None:
    """Draw perplexity against blocks removed, and the losing candidates of each step, into a PNG."""
    if not has_plot(report):
        raise ReportError("The run removed known blocks, without a search, so there is no curve to draw.")

    # White whatever the background of the page, so that the plot can be read in dark mode. No display is needed.
    figure = Figure(figsize=(6, 4), dpi=200, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    first = len(report.removed_blocks) - len(report.steps)
    curve = [report.perplexity_before, *(_perplexity(report, step.final_loss) for step in report.steps)]
    points = [
        (first + number, value) for number, value in enumerate(curve) if value is not None and is_finite_number(value)
    ]
    lowest, highest = _limits([value for _, value in points])
    width = min(14, 180 / len(report.steps))  # in points, so that the dashes of neighbours do not touch
    for number, step in enumerate(report.steps, start=first + 1):
        losing = (_perplexity(report, loss) for block, loss in step.candidate_losses.items() if block != step.block)
        _draw_losing(axes, number, [value for value in losing if value is not None], highest, width)
    numbers, values = zip(*points, strict=True)
    axes.plot(numbers, values, color=_CHOSEN, marker="o", markersize=6, linewidth=2, label="the model", zorder=3)
    axes.set_ylim(lowest, highest)
    _dress(axes)
    figure.legend(frameon=False, fontsize=9.5, labelcolor=_INK, loc="outside upper left", ncols=3)
    figure.savefig(path, metadata={"Software": None})


def _perplexity(report: PruningReport, loss: float | None) -> float | None:
    if loss is None or report.calibration is None:
        return None
    return perplexity_of(loss, report.calibration.num_counted)


def _limits(curve: list[float]) -> tuple[float, float]:
    """Return the ends of the logarithmic axis: the curve fills it, and candidates far above do not stretch it."""
    low, high = math.log(min(curve)), math.log(max(curve))
    span = max(high - low, 0.1)
    return math.exp(low - 0.1 * span), math.exp(high + _HEADROOM * span)


def _draw_losing(axes: Axes, number: int, perplexities: list[float], highest: float, width: float) -> None:
    """Draw a dash for each losing candidate of a step, and above the plot the number of those that do not fit."""
    inside = [value for value in perplexities if value <= highest]
    axes.plot([number] * len(inside), inside, linestyle="", marker="_", markersize=width, color=_LOSING, alpha=0.8)
    if above := len(perplexities) - len(inside):
        axes.annotate(
            f"{above}\n▲",
            (number, highest),
            xytext=(0, 1),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=_LOSING_TEXT,
            fontsize=8,
            linespacing=1.0,
        )


def _dress(axes: Axes) -> None:
    axes.set_yscale("log")
    lowest, highest = axes.get_ylim()
    # A narrow range has too few round numbers of a logarithmic scale.
    is_narrow = highest < 2.5 * lowest
    axes.yaxis.set_major_locator(MaxNLocator(6) if is_narrow else LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("perplexity on the calibration text", fontsize=11, color=_INK)
    axes.set_xlabel("decoder blocks removed", fontsize=11, color=_INK)
    axes.tick_params(labelsize=11, colors=_INK, which="both")
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.plot([], [], linestyle="", marker="_", markersize=14, color=_LOSING, label="candidates that lost")
    axes.plot([], [], linestyle="", marker="^", markersize=5, color=_LOSING_TEXT, label="and how many lie higher")
