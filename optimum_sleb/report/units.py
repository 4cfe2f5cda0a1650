"""Conversion of loss sums to perplexities."""

import math


def perplexity_of(loss_sum: float, num_tokens: int) -> float:
    """Return exp(loss sum in nats / tokens), as the code of arXiv 2402.09025 does; infinity on overflow.

    >>> round(perplexity_of(2.0794 * 100, 100), 2)
    8.0
    """
    try:
        return math.exp(loss_sum / num_tokens)
    except OverflowError:
        return math.inf
