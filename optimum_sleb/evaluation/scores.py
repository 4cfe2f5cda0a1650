"""What an evaluation gives: numbers with their standard errors, and what they lose against the dense model's."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..errors import ConfigError
from ..records import EvaluationRecord


@dataclass(frozen=True)
class Score:
    """A number that was measured on one model.

    Attributes:
        task: Data set, file or task.
        metric: What was measured, such as `"perplexity"` or `"acc_norm"`.
        value: The number.
        protocol: How it was measured, for a reader.
        higher_is_better: Whether more of it is better.
        num_examples: Number of examples, for a perplexity of windows.
        stderr: Standard error of the number over the examples; `None` where there is none.
        examples: What each example contributes: their mean differs from the number, to first order, by a constant, so
            that their spread is the number's. Two models' scores are compared example by example. Empty where a
            metric does not come apart so.
        parts: The scores of several tasks, where this one is their mean.
    """

    task: str
    metric: str
    value: float
    protocol: str
    higher_is_better: bool
    num_examples: int
    stderr: float | None = None
    examples: tuple[float, ...] = field(default=(), repr=False)
    parts: "tuple[Score, ...]" = field(default=(), repr=False)


def standard_error(examples: Sequence[float]) -> float | None:
    """The standard error of a mean.

    Args:
        examples: What the mean is taken of.

    Returns:
        Sample standard deviation over the root of their number; `None` for fewer than two.

    Example:
        >>> standard_error([0.0, 1.0])
        0.5
    """
    return statistics.stdev(examples) / math.sqrt(len(examples)) if len(examples) > 1 else None


def mean_score(task: str, scores: Sequence[Score], protocol: str) -> Score:
    """The mean of several tasks' scores, each with the same weight.

    Args:
        task: A name for all of them.
        scores: The scores; their examples are different ones, so their errors are independent.
        protocol: What the mean is taken of.

    Returns:
        The mean, and its standard error where all have one.

    Example:
        >>> scores = [Score(t, "acc", v, "", True, 9, 0.03) for t, v in (("a", 0.25), ("b", 0.5))]
        >>> mean_score("both", scores, "").value
        0.375
    """
    errors = [score.stderr for score in scores if score.stderr is not None]
    return Score(
        task,
        "accuracy",
        statistics.fmean(score.value for score in scores),
        protocol,
        True,
        sum(score.num_examples for score in scores),
        math.hypot(*errors) / len(scores) if len(errors) == len(scores) else None,
        parts=tuple(scores),
    )


def difference_stderr(pruned: Score, dense: Score) -> float | None:
    """The standard error of the difference of two models' scores.

    Args:
        pruned: One model's score.
        dense: The other's, on the same examples.

    Returns:
        Of the differences example by example, where they are known: two models err on the same examples, so their
        difference is surer than either number. Else as if the two were independent; `None` where that is not known.

    Example:
        >>> one = Score("piqa", "acc", 0.5, "", True, 2, 0.5, (0.0, 1.0))
        >>> difference_stderr(one, one)
        0.0
    """
    if pruned.parts and [part.task for part in pruned.parts] == [part.task for part in dense.parts]:
        errors = [difference_stderr(*pair) for pair in zip(pruned.parts, dense.parts, strict=True)]
        known = [error for error in errors if error is not None]
        return math.hypot(*known) / len(errors) if len(known) == len(errors) else None
    if pruned.examples and len(pruned.examples) == len(dense.examples):
        return standard_error([one - other for one, other in zip(pruned.examples, dense.examples, strict=True)])
    if pruned.stderr is None or dense.stderr is None:
        return None
    return math.hypot(pruned.stderr, dense.stderr)


def record_of(pruned: Score, dense: Score | None = None) -> EvaluationRecord:
    """A score of the pruned model, and of the dense one, as one measurement for the report.

    Args:
        pruned: The pruned model's score.
        dense: The dense model's, measured in the same way.

    Returns:
        The measurement.

    Raises:
        ConfigError: If the two were measured in different ways, so that they do not compare.
        ReportError: If a number is not finite.

    Example:
        >>> record_of(Score("c4", "perplexity", 8.17, "2 windows of 2,048 tokens", False, 2)).after
        8.17
    """
    if dense is not None and _way(dense) != _way(pruned):
        raise ConfigError(
            f"The two scores were measured in different ways ({_way(pruned)} and {_way(dense)}); measure both alike."
        )
    return EvaluationRecord(
        metric=pruned.metric,
        dataset=pruned.task,
        protocol=pruned.protocol,
        after=pruned.value,
        before=None if dense is None else dense.value,
        after_stderr=pruned.stderr,
        before_stderr=None if dense is None else dense.stderr,
        difference_stderr=None if dense is None else difference_stderr(pruned, dense),
        num_examples=pruned.num_examples,
    )


def without_examples(score: Score) -> Score:
    """A score as it is told to people: without what each single example contributes.

    Args:
        score: The score.

    Returns:
        The same without them.

    Example:
        >>> without_examples(Score("piqa", "acc", 0.5, "", True, 2, 0.5, (0.0, 1.0))).examples
        ()
    """
    return replace(score, examples=(), parts=())


def _way(score: Score) -> tuple[str, str, str, int]:
    return score.task, score.metric, score.protocol, score.num_examples
