"""From sums of losses to perplexities."""

import math


def perplexity_of(loss_sum: float, num_tokens: int) -> float:
    """The perplexity that belongs to a sum of window losses.

    Args:
        loss_sum: Sum over windows of (mean cross-entropy x length), in nats; see `losses.window_losses`.
        num_tokens: Number of tokens in these windows.

    Returns:
        exp(loss sum / tokens), as in the official code of arXiv 2402.09025; infinity where a float cannot hold it.

    Example:
        >>> round(perplexity_of(2.0794 * 100, 100), 2)
        8.0
    """
    try:
        return math.exp(loss_sum / num_tokens)
    except OverflowError:
        return math.inf
