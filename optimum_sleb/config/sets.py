"""How a recipe searches: over sets of blocks or one by one, by a race or on all windows."""

from typing import Any, TypeAlias

from ..errors import ConfigError

# `SLEBConfig` stands on these functions, so they cannot import it for its name.
Recipe: TypeAlias = Any

_WIDTH_WITH_RUNS = 4
# With fewer, the first looks of a race are a large share of all windows already.
_FEWEST_WINDOWS_TO_RACE = 32


def searches_sets(recipe: Recipe) -> bool:
    """Return whether each depth has its own best set, instead of one block more than the depth before."""
    return recipe.search_space is not None or width_of_beam(recipe) > 1


def width_of_beam(recipe: Recipe) -> int:
    """Return the number of sets that go on to the next depth."""
    if recipe.beam_width is not None:
        return int(recipe.beam_width)
    return 1 if recipe.search_space is None else _WIDTH_WITH_RUNS


def races(recipe: Recipe, num_windows: int) -> bool:
    """Return whether candidates that are surely behind are given up before all windows are measured."""
    return recipe.search == "racing" or (recipe.search == "auto" and num_windows >= _FEWEST_WINDOWS_TO_RACE)


def most_sets(recipe: Recipe, num_candidates: int) -> int:
    """Return how many sets, or single blocks, can be measured at one depth."""
    if not searches_sets(recipe):
        return num_candidates
    return num_candidates * (width_of_beam(recipe) + (recipe.search_space == "runs"))


def check_compensate(recipe: Recipe) -> None:
    """Refuse compensation during a search whose depths do not build on each other."""
    if searches_sets(recipe) and recipe.compensate == "during":
        raise ConfigError(
            "compensate='during' compensates after each removal, but a search over sets (search_space, beam_width) "
            "compensates at its end; use 'after' or 'every-block'."
        )
