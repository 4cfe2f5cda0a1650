"""Text diagram of the dense model's stack that shows which blocks were removed, and at which step."""

from ..report.report import PruningReport
from .limits import protected_blocks

_PER_LINE = 10
_KEPT = "■"
_PROTECTED = "▨"


def stack_diagram(report: PruningReport) -> str:
    """Draw the dense model's stack, ten blocks a line: a square is a kept block, a number the step of a removal.
    A hatched square is a block that the last recipe protects by its number."""
    step_of = {block: step for step, block in enumerate(report.removed_blocks, start=1)}
    protected = protected_blocks(report)
    width = max(len(str(len(step_of))), 1) + 2
    kept = {block: _PROTECTED if block in protected else _KEPT for block in range(report.original_num_blocks)}
    cells = [f"{step_of.get(block, kept[block]):>{width}}" for block in kept]
    margin = len(str(report.original_num_blocks))
    return "\n".join(
        f"{first:>{margin}} {''.join(cells[first : first + _PER_LINE])}" for first in range(0, len(cells), _PER_LINE)
    )
