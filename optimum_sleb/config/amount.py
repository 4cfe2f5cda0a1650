"""How many blocks a recipe removes from a model."""

import math
from fractions import Fraction

from ..errors import ConfigError

# Fields of a recipe of which exactly one is given.
AMOUNTS = ("sparsity", "num_blocks_to_remove", "max_perplexity_increase")


def num_blocks_to_remove_of(
    num_blocks: int,
    *,
    sparsity: float | None,
    num_blocks_to_remove: int | None,
    max_perplexity_increase: float | None,
    early_barrier: int,
    latter_barrier: int,
) -> int | None:
    """Return how many of a model's blocks go, `None` if the search decides; the arguments are a recipe's fields."""
    protected = early_barrier + latter_barrier
    if max_perplexity_increase is not None:
        num_removed, phrase = (
            1,
            f"max_perplexity_increase={max_perplexity_increase} needs at least 1 candidate",
        )
    elif sparsity is not None:
        # Exact arithmetic: 0.07 x 100 is 7, whatever binary floating point says.
        num_removed = math.ceil(Fraction(str(sparsity)) * num_blocks)
        phrase = f"sparsity={sparsity} removes {num_removed} of {num_blocks} blocks"
    else:
        assert num_blocks_to_remove is not None  # a recipe has one of the three
        num_removed = num_blocks_to_remove
        phrase = f"num_blocks_to_remove={num_removed} of {num_blocks} blocks"
        if num_removed > num_blocks:
            phrase = f"num_blocks_to_remove={num_removed} leaves none of the {num_blocks} blocks"
    if num_blocks - num_removed < protected:
        left = f" and leaves {num_blocks - num_removed}" if num_removed <= num_blocks else ""
        most = num_blocks - protected
        remedy = f"remove at most {most} blocks or lower the barriers" if most > 0 else "lower the barriers"
        raise ConfigError(
            f"{phrase}{left}, fewer than the {protected} that early_barrier={early_barrier} and "
            f"latter_barrier={latter_barrier} protect; {remedy}."
        )
    return None if max_perplexity_increase is not None else num_removed
