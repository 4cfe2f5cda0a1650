"""Tables of scores as text."""

from collections.abc import Sequence

from ..runtime.table import text_table
from .scores import Score, difference_stderr


def score_table(pruned: Sequence[Score], dense: Sequence[Score] | None = None) -> str:
    """Return the scores of one model, or of two side by side, with standard errors, as lines of text.

    >>> print(score_table([Score("piqa", "acc", 0.7, "", True, 100, 0.046)]))
    task  metric          score
    piqa  acc     0.700 ± 0.046
    """
    header = ["task", "metric", *(["dense", "pruned", "difference"] if dense else ["score"])]
    others = {(score.task, score.metric): score for score in dense or ()}
    rows = [header, *(_row(score, others.get((score.task, score.metric)), bool(dense)) for score in pruned)]
    return text_table(rows)


def with_error(value: float, stderr: float | None, *, signed: bool = False) -> str:
    """Return a value and its standard error as text, with three decimals below 2 and two above.

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
