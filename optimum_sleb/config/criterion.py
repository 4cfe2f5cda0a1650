"""How a recipe names a criterion of one's own."""

import re

from ..errors import ConfigError
from ..runtime.json import shown


def check_criterion(criterion: str | None, max_perplexity_increase: float | None) -> None:
    """Raise ConfigError for what cannot be the name of a function, or is none that a perplexity can be made of.
    Whether there is such a function is asked when it is needed: a recipe can be read where it is not installed."""
    if criterion is None:
        return
    if criterion != "kl" and not re.fullmatch(r"[^\s:]+:[^\s:]+", criterion):
        raise ConfigError(
            f"criterion must be 'kl' or name a function of a module, as 'org.module:function'; got {shown(criterion)}."
        )
    if max_perplexity_increase is not None:
        raise ConfigError(
            f"The losses of criterion={shown(criterion)} make no perplexity, so max_perplexity_increase cannot bound "
            "it; use sparsity or num_blocks_to_remove."
        )
