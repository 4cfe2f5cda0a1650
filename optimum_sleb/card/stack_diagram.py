"""Text diagram of the dense model's stack that shows which blocks were removed, and at which step."""

from ..report.report import PruningReport

_PER_LINE = 10
_KEPT = "■"


def stack_diagram(report: PruningReport) -> str:
    """Draw the dense model's stack, ten blocks a line: a square is a kept block, a number the step of a removal."""
    step_of = {block: step for step, block in enumerate(report.removed_blocks, start=1)}
    width = max(len(str(len(step_of))), 1) + 2
    cells = [f"{step_of.get(block, _KEPT):>{width}}" for block in range(report.original_num_blocks)]
    margin = len(str(report.original_num_blocks))
    return "\n".join(
        f"{first:>{margin}} {''.join(cells[first : first + _PER_LINE])}" for first in range(0, len(cells), _PER_LINE)
    )
