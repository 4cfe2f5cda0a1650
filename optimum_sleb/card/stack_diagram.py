"""Text diagram of the dense model's stack that shows which blocks were removed, and at which step."""

from ..report.report import PruningReport
from .limits import protected_blocks

_PER_LINE = 10
_KEPT = "■"
_PROTECTED = "▨"
_IN_A_SET = "□"


def stack_diagram(report: PruningReport) -> str:
    """Draw the dense model's stack, ten blocks a line: a square is a kept block, a number the step of a removal, an
    empty one a block that went with a set. A hatched square is a block that the last recipe protects by its number."""
    in_sets = {step.block for run in report.runs if run.depths for step in run.steps}
    step_of: dict[int, int | str] = {
        block: _IN_A_SET if block in in_sets else step for step, block in enumerate(report.removed_blocks, start=1)
    }
    protected = protected_blocks(report)
    width = max(len(str(len(step_of))), 1) + 2
    kept = {block: _PROTECTED if block in protected else _KEPT for block in range(report.original_num_blocks)}
    cells = [f"{step_of.get(block, kept[block]):>{width}}" for block in kept]
    margin = len(str(report.original_num_blocks))
    return "\n".join(
        f"{first:>{margin}} {''.join(cells[first : first + _PER_LINE])}" for first in range(0, len(cells), _PER_LINE)
    )
