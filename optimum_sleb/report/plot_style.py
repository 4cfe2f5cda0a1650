"""What the plots have in common: a white figure, readable axes, a logarithmic scale with round numbers."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

# From the Okabe-Ito palette, which colour-blind readers can tell apart; the colours also differ in lightness.
BLUE = "#0072B2"
ORANGE = "#D98200"
BROWN = "#8A5300"
INK = "#222222"


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure that needs no display, and is white whatever the background of the page."""
    figure = Figure(figsize=(width, height), dpi=200, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure without the version of matplotlib, so that the same numbers give the same file."""
    figure.savefig(path, metadata={"Software": None})


def style_axes(axes: Axes, y_label: str) -> None:
    """Label the y-axis, and leave only what helps to read off a value."""
    axes.set_ylabel(y_label, fontsize=11, color=INK)
    axes.tick_params(labelsize=11, colors=INK, which="both")
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def label_removed_blocks(axes: Axes) -> None:
    """Make the x-axis one of whole numbers of removed blocks."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("decoder blocks removed", fontsize=11, color=INK)


def use_log_scale(axes: Axes, multiples: tuple[float, ...]) -> None:
    """Make the y-axis logarithmic, with ticks at multiples of powers of ten; a narrow range has too few of them."""
    axes.set_yscale("log")
    lowest, highest = axes.get_ylim()
    is_narrow = highest < 2.5 * lowest
    axes.yaxis.set_major_locator(MaxNLocator(6) if is_narrow else LogLocator(subs=multiples))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
