"""Rows of a data set turned into token windows, by what their columns hold."""

from collections.abc import Iterable
from itertools import chain
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..config import SLEBConfig
from ..errors import CalibrationError
from .loaded import LoadedWindows
from .rows import Row, no_labels, rows_of_example, windows_of_rows
from .texts import iter_column, joined, rows_read
from .tokens import windows_of_text


def load_rows(
    rows: Iterable[Any], source: str, tokenizer: PreTrainedTokenizerBase | None, config: SLEBConfig
) -> LoadedWindows:
    """Make token windows of rows: of their `input_ids`, where the first row has them, else of their text."""
    read = rows_read(rows, source)
    first = next(read, None)
    read = read if first is None else chain([first], read)
    if first is not None and "input_ids" in first:
        numbered = (rows_of_example(row, where=f"Row {number} of {source}") for number, row in enumerate(read))
        return from_rows(chain.from_iterable(numbered), f"{source} (input_ids)", config)
    return cut_text(joined(iter_column(read, config.text_column, source)), source, tokenizer, config)


def cut_text(
    pieces: Iterable[str], source: str, tokenizer: PreTrainedTokenizerBase | None, config: SLEBConfig
) -> LoadedWindows:
    """Cut the text that the pieces make up into windows; it carries no labels."""
    if tokenizer is None:
        raise CalibrationError(f"{source} is text, but there is no tokenizer; give one, or calibrate on token ids.")
    if config.loss == "labels":
        raise no_labels(source)
    windows, has_bos = windows_of_text(
        pieces, tokenizer, config.window_length, config.max_windows, config.bos_per_window
    )
    return LoadedWindows(windows, source, has_bos)


def from_rows(rows: Iterable[Row], source: str, config: SLEBConfig) -> LoadedWindows:
    """Make each row a window; its BOS is its own."""
    windows = windows_of_rows(rows, config.loss, config.max_windows, source)
    return LoadedWindows(windows, source, bos_per_window=False)
