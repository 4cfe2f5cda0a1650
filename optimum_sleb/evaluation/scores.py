"""Scores of an evaluation, their standard errors, and the difference between two models."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..errors import ConfigError
from ..report.records import EvaluationRecord


@dataclass(frozen=True)
class Score:
    """A metric that was measured on one model.

    Attributes:
        task: Data set, file or task.
        metric: Name of the metric, such as `"perplexity"` or `"acc_norm"`.
        value: The value of the metric.
        protocol: How it was measured, in words.
        higher_is_better: Whether a higher value is better.
        num_examples: Number of examples; for a perplexity, of windows.
        stderr: Standard error of `value` over the examples; `None` if it is not known.
        examples: Contribution of each example. To first order, their mean differs from `value` only by a constant, so
            their spread gives the standard error. Two models' scores are compared example by example. Empty for a
            metric that cannot be split into examples.
        parts: The scores that this one is the mean of; empty if it is no mean.

    Example:
        >>> Score("piqa", "acc_norm", 0.71, "100 examples, 0 shots", True, 100, stderr=0.046).value
        0.71
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
    """Return the sample standard deviation over the root of the number of examples; `None` for fewer than two.

    >>> standard_error([0.0, 1.0])
    0.5
    """
    return statistics.stdev(examples) / math.sqrt(len(examples)) if len(examples) > 1 else None


def mean_score(task: str, scores: Sequence[Score], protocol: str) -> Score:
    """Return the mean of several tasks' scores, with equal weights; their errors are taken as independent."""
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
    """Return the standard error of the difference of two models' scores; `None` if it is not known.

    It is paired where the examples are known: both models err on the same ones, so it is smaller than for two alone.
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
    """Return the scores of the shortened and the dense model as one record; ConfigError if their protocols differ."""
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
    """Return the score for display: without examples and parts."""
    return replace(score, examples=(), parts=())


def _way(score: Score) -> tuple[str, str, str, int]:
    return score.task, score.metric, score.protocol, score.num_examples
