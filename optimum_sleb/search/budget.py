"""Perplexity budget of a search: blocks are removed as long as the calibration perplexity stays within it."""

from collections.abc import Callable

from ..calibration.windows import TokenWindows
from ..config import SLEBConfig
from ..errors import ConfigError
from ..report.units import perplexity_of


def budget_of(config: SLEBConfig, windows: TokenWindows, loss_before: float) -> Callable[[float], bool]:
    """Return a function that tells whether a loss after a removal is within the recipe's perplexity budget.
    Losses are sums over `windows`, in nats. The function raises ConfigError if the first removal exceeds the budget.

    >>> import torch
    >>> windows = TokenWindows((torch.tensor([1, 2]),))
    >>> accept = budget_of(SLEBConfig(max_perplexity_increase=0.1), windows, loss_before=2.0)
    >>> accept(2.1), accept(2.4)
    (True, False)
    """
    budget = config.max_perplexity_increase
    if budget is None:
        return lambda loss: True
    before = perplexity_of(loss_before, windows.num_counted)
    accepted = 0

    def accept(loss: float) -> bool:
        nonlocal accepted
        increase = perplexity_of(loss, windows.num_counted) / before - 1
        if increase > budget and not accepted:
            raise ConfigError(
                f"No block can be removed within max_perplexity_increase={budget}: even the best removal raises the "
                f"perplexity by {increase:.3g} of its value; allow more."
            )
        accepted += 1
        return increase <= budget

    return accept
