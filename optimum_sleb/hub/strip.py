"""The dense model's stack as a strip of text: which blocks are left, and when the others went."""

from ..report import PruningReport

_PER_LINE = 10
_KEPT = "■"


def strip_of(report: PruningReport) -> str:
    """Draw the stack of the dense model, ten blocks a line.

    Args:
        report: The report of the run.

    Returns:
        Lines of text: a square is a block that is left, a number the step at which a block went.

    Example:
        ```python
        print(strip_of(report))  #   0   ■  ■  ■  3  1  2  ■  ■  ■  ■
        ```
    """
    step_of = {block: step for step, block in enumerate(report.removed_blocks, start=1)}
    width = max(len(str(len(step_of))), 1) + 2
    cells = [f"{step_of.get(block, _KEPT):>{width}}" for block in range(report.original_num_blocks)]
    margin = len(str(report.original_num_blocks))
    return "\n".join(
        f"{first:>{margin}} {''.join(cells[first : first + _PER_LINE])}" for first in range(0, len(cells), _PER_LINE)
    )
