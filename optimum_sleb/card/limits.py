"""What a card tells of the limits and the target of a recipe."""

from ..config import limits_in_words
from ..report.report import PruningReport
from ..report.stack_plot import named_as_protected


def protected_blocks(report: PruningReport) -> set[int]:
    """Return the blocks that the last run's recipe keeps by their number; the barriers name none."""
    return named_as_protected(report.recipe, report.blocks_before)


def sentences_on_limits(report: PruningReport) -> list[str]:
    """Return a sentence for each run whose recipe names blocks, and for each whose recipe has a target."""
    sentences = []
    for run in report.runs:
        if run.recipe is not None and (words := limits_in_words(run.recipe)):
            sentences.append(f"The recipe named blocks: {words}.")
        if run.target is not None:
            sentences.append(f"The search ended where its target was met: {run.target.summary()}.")
    return sentences
