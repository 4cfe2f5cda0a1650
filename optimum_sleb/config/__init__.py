"""The recipe of a pruning run, and what its values can be."""

from .amount import AMOUNTS, BELONGS_TO, amount_name, candidates_of, limits_in_words, num_asked_for
from .bounds import FEWEST_WINDOWS_TO_COMPENSATE, MAX_BLOCKS, MOST, PUBLISHED_WINDOW_LENGTH
from .criterion import check_criterion
from .keywords import recipe_of
from .limits import as_ranges, block_numbers
from .presets import PRESETS
from .quantity import quantity_of
from .recipe import SLEBConfig
from .sets import most_sets, races, searches_sets, width_of_beam
from .stored import RECIPE_FILE_NAME

__all__ = [
    "AMOUNTS",
    "BELONGS_TO",
    "FEWEST_WINDOWS_TO_COMPENSATE",
    "MAX_BLOCKS",
    "MOST",
    "PRESETS",
    "PUBLISHED_WINDOW_LENGTH",
    "RECIPE_FILE_NAME",
    "SLEBConfig",
    "amount_name",
    "as_ranges",
    "block_numbers",
    "candidates_of",
    "check_criterion",
    "limits_in_words",
    "most_sets",
    "num_asked_for",
    "quantity_of",
    "races",
    "recipe_of",
    "searches_sets",
    "width_of_beam",
]
