"""Calibration and evaluation data of any kind, tokenised and cut into token windows."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..config import SLEBConfig
from .evaluation_texts import iter_text, local_evaluation_text
from .in_memory import load_in_memory
from .loaded import LoadedWindows
from .named import load_named
from .places import Published, find
from .reading import Reading
from .texts import NAMED_DATASETS, published_evaluation_text
from .tokens import windows_of_text


def load_calibration(data: Any, tokenizer: PreTrainedTokenizerBase | None, config: SLEBConfig) -> LoadedWindows:
    """Make token windows of calibration data; `data=None` uses the recipe's `dataset`.
    Texts are joined by a blank line, tokenised as one and cut into windows. Each row of other data is one window, of
    its own length, without padding; a row of packed sequences (`position_ids`) is one window per sequence.
    """
    if isinstance(data, str | Path):
        config = replace(config, dataset=str(data))
    if data is None or isinstance(data, str | Path):
        return load_named(tokenizer, config)
    return load_in_memory(data, tokenizer, config)


def load_evaluation(
    dataset: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    window_length: int = 2048,
    max_windows: int | None = None,
    bos_per_window: bool = True,
    text_column: str = "text",
    data_dir: Path | None = None,
    reading: Reading | None = None,
) -> LoadedWindows:
    """Make the token windows on which perplexity is reported, of `"wikitext2"`, `"c4"`, local files or the Hub's data.
    `data_dir` is a folder with the named data sets as files (`None`: the Hub). `max_windows=None` uses all windows, or
    the published 256 of C4.
    """
    reading = reading or Reading(is_evaluation=True)
    place = find(dataset)
    reading.check([place])
    if isinstance(place, Published):
        max_windows = max_windows or NAMED_DATASETS[dataset].evaluation_windows
        if data_dir is None:
            pieces: Iterable[str] = [published_evaluation_text(dataset)]
        else:
            text, dataset = local_evaluation_text(dataset, data_dir)
            pieces = [text]
    else:
        pieces, dataset = iter_text(place, text_column, reading), place.name
    windows, has_bos = windows_of_text(pieces, tokenizer, window_length, max_windows, bos_per_window)
    return LoadedWindows(windows, dataset, has_bos)
