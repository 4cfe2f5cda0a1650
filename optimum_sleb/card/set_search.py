"""What a card tells of a search over sets of blocks."""

from dataclasses import dataclass

from ..config import SLEBConfig, width_of_beam
from ..report.depths import in_words
from ..report.report import PruningReport
from .format import format_number


@dataclass(frozen=True)
class DepthRow:
    """The best set of one size, in the words of the card."""

    num_removed: int
    blocks: str
    num_sets: str  # that were measured
    value: str  # of what the search lowered, and whether compensated


def pool_in_words(recipe: SLEBConfig | None) -> str:
    """Return which sets a search compared, as a part of a sentence."""
    if recipe is None:
        return "each removed at once"
    width = width_of_beam(recipe)
    kept = f"the best {width} of each size" if width > 1 else "the best of each size"
    runs = ", and every run of neighbouring blocks" if recipe.search_space == "runs" else ""
    return f"{kept} with one block more{runs}"


def depth_rows(report: PruningReport) -> list[DepthRow]:
    """Return a row for each depth of the last run, from one block up; no rows where it did not search over sets."""
    return [
        DepthRow(
            num_removed=number,
            blocks=in_words(depth.removed),
            num_sets=f"{depth.num_measured:,}",
            value=format_number(report.value_of(depth.final_loss))
            + ("" if depth.compensated_loss is None else ", compensated"),
        )
        for number, depth in enumerate(report.depths, start=1)
    ]
