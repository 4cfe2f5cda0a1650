"""The recipe of a pruning run, and what its values can be."""

from .bounds import MAX_BLOCKS, MOST, PUBLISHED_WINDOW_LENGTH
from .recipe import RECIPE_FILE_NAME, SLEBConfig

__all__ = ["MAX_BLOCKS", "MOST", "PUBLISHED_WINDOW_LENGTH", "RECIPE_FILE_NAME", "SLEBConfig"]
