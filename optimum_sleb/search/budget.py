"""Perplexity budget of a search: blocks are removed as long as the calibration perplexity stays within it."""

from ..blocks.losses import perplexity_of
from ..config import SLEBConfig
from ..errors import ConfigError


def is_within_budget(config: SLEBConfig, loss: float, loss_before: float, num_tokens: int, *, is_first: bool) -> bool:
    """Return whether the loss after a removal is within the recipe's perplexity budget, if it has one.
    Both losses are sums over `num_tokens` tokens, in nats. Raise ConfigError if the first removal exceeds the budget.

    >>> config = SLEBConfig(max_perplexity_increase=0.1)
    >>> is_within_budget(config, 2.1, 2.0, 2, is_first=True), is_within_budget(config, 2.4, 2.0, 2, is_first=False)
    (True, False)
    """
    budget = config.max_perplexity_increase
    if budget is None:
        return True
    increase = perplexity_of(loss, num_tokens) / perplexity_of(loss_before, num_tokens) - 1
    if increase > budget and is_first:
        raise ConfigError(
            f"No block can be removed within max_perplexity_increase={budget}: even the best removal raises the "
            f"perplexity by {increase:.3g} of its value; allow more."
        )
    return increase <= budget
