"""The plot of perplexity and speed for every depth of a search."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from ..evaluation.curve import Depth

CURVE_FILE_NAME = "sleb_curve.png"

# From the Okabe-Ito palette, as in `loss_plot`; the two curves also differ in lightness and in their markers.
_PERPLEXITY = "#0072B2"
_SPEED = "#8A5300"
_INK = "#222222"


def draw_curve(depths: Sequence[Depth], path: Path) -> None:
    """Draw perplexity and speed-up against blocks removed into a PNG; `depths` starts with the dense model."""
    # White whatever the background of the page, so that the plot can be read in dark mode. No display is needed.
    figure = Figure(figsize=(6, 5), dpi=200, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    numbers = [depth.num_removed for depth in depths]
    scores = [depth.score for depth in depths]
    above.errorbar(
        numbers,
        [score.value for score in scores],
        yerr=[score.stderr or 0.0 for score in scores],
        color=_PERPLEXITY,
        marker="o",
        capsize=3,
        linewidth=2,
    )
    above.set_yscale("log")
    _ticks(above)
    above.set_ylabel(f"perplexity, {Path(scores[0].task).name}", fontsize=11, color=_INK)
    dense = depths[0].timing
    below.plot(
        numbers, [dense.median / depth.timing.median for depth in depths], color=_SPEED, marker="s", linewidth=2
    )
    below.set_ylabel("speed-up of a prompt", fontsize=11, color=_INK)
    below.set_xlabel("decoder blocks removed", fontsize=11, color=_INK)
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (above, below):
        axes.tick_params(labelsize=11, colors=_INK, which="both")
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.savefig(path, metadata={"Software": None})


def _ticks(axes: Axes) -> None:
    """Set ticks at round numbers, also where the range is too narrow for those of a logarithmic scale."""
    lowest, highest = axes.get_ylim()
    axes.yaxis.set_major_locator(MaxNLocator(6) if highest < 2.5 * lowest else LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
