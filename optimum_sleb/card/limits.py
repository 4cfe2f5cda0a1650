"""What a card tells of the limits and the target of a recipe."""

from ..config import block_numbers, limits_in_words
from ..report.report import PruningReport


def protected_blocks(report: PruningReport) -> set[int]:
    """Return the blocks that the last run's recipe keeps by their number; the barriers name none."""
    recipe = report.recipe
    if recipe is None:
        return set()
    protected = block_numbers(recipe.protected_blocks, "protected_blocks") if recipe.protected_blocks else ()
    if recipe.candidate_blocks is None:
        return set(protected)
    named = block_numbers(recipe.candidate_blocks, "candidate_blocks")
    return {*protected, *report.blocks_before} - set(named)


def sentences_on_limits(report: PruningReport) -> list[str]:
    """Return a sentence for each run whose recipe names blocks, and for each whose recipe has a target."""
    sentences = []
    for run in report.runs:
        if run.recipe is not None and (words := limits_in_words(run.recipe)):
            sentences.append(f"The recipe named blocks: {words}.")
        if run.target is not None:
            sentences.append(f"The search ended where its target was met: {run.target.summary()}.")
    return sentences
