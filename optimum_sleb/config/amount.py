"""How many blocks a recipe removes from a model, and which."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, TypeAlias

from ..errors import ConfigError
from ..runtime.json import shown
from .limits import candidates_among, protectors
from .quantity import quantity_of

# `SLEBConfig` stands on these functions, so they cannot import it for its name.
Recipe: TypeAlias = Any

# Fields of a recipe of which exactly one is given.
AMOUNTS = (
    "sparsity",
    "num_blocks_to_remove",
    "max_perplexity_increase",
    "max_parameters",
    "max_memory",
    "min_speedup",
)
_LIMITS = ("early_barrier", "latter_barrier", "protected_blocks", "candidate_blocks")
# Fields that say more about one of the amounts.
BELONGS_TO = {"context_length": "max_memory", "num_sequences": "max_memory", "speedup_of": "min_speedup"}


def amount_name(recipe: Recipe) -> str:
    """Return the name of the field that says how much a recipe removes."""
    return next(name for name in AMOUNTS if getattr(recipe, name) is not None)


def limits_of(recipe: Recipe) -> dict[str, Any]:
    """Return the fields of a recipe that say which blocks may go."""
    return {name: getattr(recipe, name) for name in _LIMITS}


def limits_in_words(recipe: Recipe) -> str:
    """Return which blocks a recipe names as protected or as candidates; empty where it names none.

    >>> from optimum_sleb import SLEBConfig
    >>> limits_in_words(SLEBConfig(sparsity=0.2, protected_blocks=[0, 1, 14]))
    'protected, so never candidates: blocks 0-1,14'
    """
    protected, candidates = recipe.protected_blocks, recipe.candidate_blocks
    parts = [f"protected, so never candidates: blocks {protected}"] if protected else []
    return "; ".join([*parts, *([f"the only candidates: blocks {candidates}"] if candidates else [])])


def candidates_of(recipe: Recipe, blocks: Sequence[int]) -> list[int]:
    """Return the indices of the blocks that a recipe lets go, ascending; `blocks` are the model's, by dense number."""
    return candidates_among(blocks, **limits_of(recipe))


def num_asked_for(recipe: Recipe, num_blocks: int) -> int | None:
    """Return how many of so many blocks a recipe asks to remove, if they may go or not; `None` if it says none."""
    if recipe.sparsity is not None:
        # Exact arithmetic: 0.07 x 100 is 7, whatever binary floating point says.
        return math.ceil(Fraction(str(recipe.sparsity)) * num_blocks)
    return recipe.num_blocks_to_remove


def checked_amount(recipe: Recipe, blocks: Sequence[int]) -> int | None:
    """Return `num_asked_for` of a model with these blocks, by dense number; refuse more than may go."""
    num_blocks, most = len(blocks), len(candidates_of(recipe, blocks))
    asked = num_asked_for(recipe, num_blocks)
    num_removed = 1 if asked is None else asked
    if num_removed <= most:
        return asked
    if recipe.sparsity is not None:
        phrase = f"sparsity={recipe.sparsity} removes {num_removed} of {num_blocks} blocks"
    elif asked is None:
        phrase = f"{amount_name(recipe)}={getattr(recipe, amount_name(recipe))} needs at least 1 candidate"
    elif num_removed > num_blocks:
        phrase = f"num_blocks_to_remove={num_removed} leaves none of the {num_blocks} blocks"
    else:
        phrase = f"num_blocks_to_remove={num_removed} of {num_blocks} blocks"
    left = f" and leaves {num_blocks - num_removed}" if num_removed <= num_blocks else ""
    names = recipe.protected_blocks or recipe.candidate_blocks
    protect = "change protected_blocks, candidate_blocks or the barriers" if names else "lower the barriers"
    raise ConfigError(
        f"{phrase}{left}, fewer than the {num_blocks - most} that {protectors(**limits_of(recipe))} protect; "
        f"{f'remove at most {most} blocks or {protect}' if most else protect}."
    )


def check_amount(recipe: Recipe) -> None:
    """Refuse a recipe without exactly one amount, with one that cannot be, or with a field that belongs to another."""
    amounts = {name: getattr(recipe, name) for name in AMOUNTS if getattr(recipe, name) is not None}
    if len(amounts) != 1:
        given = ", ".join(f"{name}={shown(value)}" for name, value in amounts.items()) or "none of them"
        raise ConfigError(f"Say how much to remove with exactly one of {', '.join(AMOUNTS)}; got {given}.")
    if recipe.sparsity is not None and not 0 < recipe.sparsity < 1:
        raise ConfigError(f"sparsity must lie strictly between 0 and 1, got {recipe.sparsity}.")
    budget, speedup = recipe.max_perplexity_increase, recipe.min_speedup
    if budget is not None and not (budget > 0 and math.isfinite(budget)):
        raise ConfigError(f"max_perplexity_increase must be a positive number, got {budget}.")
    if speedup is not None and not (speedup > 1 and math.isfinite(speedup)):
        raise ConfigError(f"min_speedup must be a factor above 1, such as 1.25, got {speedup}.")
    for name in ("max_parameters", "max_memory"):
        if (value := getattr(recipe, name)) is not None:
            quantity_of(value, name)
    for name, owner in BELONGS_TO.items():
        if getattr(recipe, name) is not None and getattr(recipe, owner) is None:
            raise ConfigError(f"{name}={getattr(recipe, name)} belongs to {owner}, which is not given; leave it out.")
