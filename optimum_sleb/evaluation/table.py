"""Scores as a table for people."""

from collections.abc import Sequence

from .scores import Score, difference_stderr


def score_table(pruned: Sequence[Score], dense: Sequence[Score] | None = None) -> str:
    """The scores of one model, or of two side by side, with their standard errors.

    Args:
        pruned: The scores of the model.
        dense: Those of the model that it is compared with, measured in the same way.

    Returns:
        Lines of text, without a final line break.

    Example:
        >>> print(score_table([Score("piqa", "acc", 0.7, "", True, 100, 0.046)]))
        task  metric          score
        piqa  acc     0.700 ± 0.046
    """
    header = ["task", "metric", *(["dense", "pruned", "difference"] if dense else ["score"])]
    others = {(score.task, score.metric): score for score in dense or ()}
    rows = [header, *(_row(score, others.get((score.task, score.metric)), bool(dense)) for score in pruned)]
    return text_table(rows)


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Cells in columns: the first two to the left, numbers to the right.

    Args:
        rows: The rows, the header first.

    Returns:
        Lines of text, without a final line break.

    Example:
        >>> print(text_table([["a", "b", "c"], ["long", "b", "1"], ["x", "b", "22"]]))
        a     b   c
        long  b   1
        x     b  22
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def with_error(value: float, stderr: float | None, *, signed: bool = False) -> str:
    """A number and its standard error, to as many digits as make sense of it.

    Args:
        value: The number.
        stderr: Its standard error, if there is one.
        signed: Write a plus where it is positive.

    Returns:
        The text.

    Example:
        >>> with_error(0.71234, 0.0105), with_error(33.71, None, signed=True)
        ('0.712 ± 0.011', '+33.71')
    """
    digits = 3 if abs(value) < 2 else 2
    text = f"{value:{'+' if signed else ''},.{digits}f}"
    return text if stderr is None else f"{text} ± {stderr:.{digits}f}"


def _row(score: Score, other: Score | None, compared: bool) -> list[str]:
    row = [score.task, score.metric]
    if not compared:
        return [*row, with_error(score.value, score.stderr)]
    if other is None:
        return [*row, "", with_error(score.value, score.stderr), ""]
    difference = with_error(score.value - other.value, difference_stderr(score, other), signed=True)
    return [*row, with_error(other.value, other.stderr), with_error(score.value, score.stderr), difference]
