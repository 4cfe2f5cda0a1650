"""Data to heal on: token windows as calibration makes them, with labels where there are any, as rows for a Trainer."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..blocks.losses import IGNORED, next_tokens
from ..calibration.in_memory import load_in_memory
from ..calibration.loaded import LoadedWindows
from ..calibration.named import load_named, load_part
from ..calibration.rows import NoLabelsError
from ..calibration.windows import TokenWindows
from ..config import SLEBConfig
from .settings import Loss

# Of an iterator, which gives its items once, at most so many are kept for each row that is asked for.
_ITEMS_PER_ROW = 16


def load_windows(
    data: Any, tokenizer: PreTrainedTokenizerBase | None, config: SLEBConfig, loss: Loss, *, by_tokens: bool
) -> LoadedWindows:
    """Make token windows of data of any kind that calibration takes; `loss="auto"` counts labels where there are any.
    With `by_tokens`, windows shorter than `window_length` are read until they have the tokens of `max_windows` full
    ones.
    """
    if isinstance(data, Iterator) and config.max_windows is not None:
        data = list(islice(data, _ITEMS_PER_ROW * config.max_windows))
    loaded = _load(data, tokenizer, config, loss)
    most = config.max_windows
    if by_tokens and most is not None and len(loaded.windows) == most:
        share = loaded.windows.num_tokens / (most * config.window_length)
        if share < 0.9:
            loaded = _load(data, tokenizer, replace(config, max_windows=ceil(most / share)), loss)
    return loaded


def _load(data: Any, tokenizer: PreTrainedTokenizerBase | None, config: SLEBConfig, loss: Loss) -> LoadedWindows:
    if isinstance(data, str | Path):

        def load(place: Any, reading: Any, tokenizer: Any, config: SLEBConfig) -> LoadedWindows:
            return _labels_if_any(lambda one: load_part(place, reading, tokenizer, one), config, loss)

        return load_named(tokenizer, replace(config, dataset=str(data)), load)
    return _labels_if_any(lambda one: load_in_memory(data, tokenizer, one), config, loss)


def _labels_if_any(load: Callable[[SLEBConfig], LoadedWindows], config: SLEBConfig, loss: Loss) -> LoadedWindows:
    """Load one source; every position of it gets a target, so that sources with labels and without can be mixed."""
    if loss == "next_token":
        loaded = load(config)
    else:
        try:
            return load(replace(config, loss="labels"))
        except NoLabelsError:
            if loss == "labels":
                raise
            loaded = load(config)
    targets = tuple(next_tokens(window) for window in loaded.windows.windows)
    return replace(loaded, windows=TokenWindows(loaded.windows.windows, targets))


def rows_of(windows: TokenWindows) -> Dataset:
    """Return windows as rows of `input_ids` and `labels`; the first label of a row is never predicted.

    >>> rows_of(TokenWindows.from_stream(Tensor([5, 6, 7, 8]).long(), length=4))[0]
    {'input_ids': [5, 6, 7, 8], 'labels': [-100, 6, 7, 8]}
    """
    targets = windows.targets or tuple(next_tokens(window) for window in windows.windows)
    return Dataset.from_dict(
        {
            "input_ids": [window.numpy() for window in windows.windows],
            "labels": [_labels(row).numpy() for row in targets],
        }
    )


def _labels(targets: Tensor) -> Tensor:
    labels = targets.roll(1)
    labels[0] = IGNORED
    return labels
