"""Tables as lines of text, for a terminal."""

from collections.abc import Sequence


def text_table(
    rows: Sequence[Sequence[str]], *, num_left: int = 2, widths: Sequence[int] = (), gap: str = "  "
) -> str:
    """Return rows as lines of text: the first `num_left` columns left-aligned, the others right-aligned.

    `widths` are the columns' widths, without the gap; empty makes each as wide as its widest cell.

    >>> print(text_table([["a", "b", "c"], ["long", "b", "22"]]))
    a     b   c
    long  b  22
    """
    widths = widths or [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column < num_left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(gap.join(cells).rstrip())
    return "\n".join(lines)
