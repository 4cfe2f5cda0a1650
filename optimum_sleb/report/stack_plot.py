"""The stack of the dense model as a strip of cells: what went, what stayed, and what was protected."""

from collections.abc import Collection, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..config import SLEBConfig, block_numbers
from .plot_style import BLUE, INK

_KEPT, _PROTECTED = "#E4E4E4", "#BBBBBB"


def named_as_protected(recipe: SLEBConfig | None, blocks: Sequence[int]) -> set[int]:
    """Return the blocks that a recipe keeps by their number; `blocks` are those when its run began."""
    if recipe is None:
        return set()
    protected = block_numbers(recipe.protected_blocks, "protected_blocks") if recipe.protected_blocks else ()
    if recipe.candidate_blocks is None:
        return set(protected)
    return {*protected, *blocks} - set(block_numbers(recipe.candidate_blocks, "candidate_blocks"))


def draw_stack(axes: Axes, num_blocks: int, gone: Collection[int], protected: Collection[int]) -> None:
    """Draw a cell for each block of the dense model: blue went, light stayed, grey and hatched was protected."""
    for block in range(num_blocks):
        hatched = block in protected and block not in gone
        colour = BLUE if block in gone else _PROTECTED if hatched else _KEPT
        axes.bar(block, 1, width=0.9, color=colour, hatch="////" if hatched else None, edgecolor="white", linewidth=0)
    axes.set_xlim(-0.5, num_blocks - 0.5)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=9, colors=INK)
    axes.set_xlabel("block of the dense model: blue is gone, hatched was protected", fontsize=9, color=INK)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
