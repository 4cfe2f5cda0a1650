"""Rows of a data set turned into token windows, by what their columns hold: the conventions are those of TRL."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..config import SLEBConfig
from ..errors import CalibrationError
from .chats import RowTokenizer
from .kinds import Choice, choose_column, is_chat
from .loaded import LoadedWindows
from .rows import Row, no_labels, rows_of_example, windows_of_rows
from .texts import SEPARATOR, iter_column, joined, rows_read
from .tokens import windows_of_documents, windows_of_text

EOS = "eos"  # as `document_separator`: the tokenizer's token, not this text


def load_rows(
    rows: Iterable[Any], source: str, tokenizer: PreTrainedTokenizerBase | None, config: SLEBConfig
) -> LoadedWindows:
    """Make token windows of rows, mappings of columns, by what the first one holds; `source` names them in messages.
    `rows` are iterated once, and only as far as the windows need. Text is joined, tokenised as one and cut; any other
    row is a window of its own; of chats and completions longer than `window_length`, it is the start."""
    read = _mappings(rows_read(rows, source), source)
    first = next(read, None)
    if first is None:
        raise CalibrationError(f"{source} holds no rows; give data with at least one.")
    chosen = choose_column(first, source, config.text_column)
    read = chain([first], read)
    if chosen.kind == "text":
        loaded = cut_documents(iter_column(read, chosen.column, source), source, tokenizer, config)
        return _described(loaded, chosen.column, chosen.unused)
    if config.document_separator is not None:
        warnings.warn(
            f"document_separator has no effect on {source}, whose rows ({chosen.column}) are windows of their own.",
            stacklevel=2,
        )
    row_of, what = _reader_of(chosen, first, source, tokenizer, config)
    numbered = (row_of(row, where=f"Row {number} of {source}") for number, row in enumerate(read))
    return _described(from_rows(chain.from_iterable(numbered), source, config), what, chosen.unused)


def cut_documents(
    documents: Iterable[str],
    source: str,
    tokenizer: PreTrainedTokenizerBase | None,
    config: SLEBConfig,
    separator: str = SEPARATOR,
) -> LoadedWindows:
    """Cut the text of several documents into windows; the recipe can ask for another separator than `separator`."""
    if config.document_separator != EOS:
        asked = separator if config.document_separator is None else config.document_separator
        return cut_text(joined(documents, asked), source, tokenizer, config)
    return _cut(windows_of_documents, documents, source, tokenizer, config)


def cut_text(
    pieces: Iterable[str], source: str, tokenizer: PreTrainedTokenizerBase | None, config: SLEBConfig
) -> LoadedWindows:
    """Cut the text that the pieces make up into windows; it carries no labels."""
    return _cut(windows_of_text, pieces, source, tokenizer, config)


def from_rows(rows: Iterable[Row], source: str, config: SLEBConfig) -> LoadedWindows:
    """Make each row a window; its BOS is its own."""
    windows = windows_of_rows(rows, config.loss, config.max_windows, source)
    return LoadedWindows(windows, source, bos_per_window=False)


def _cut(
    windows_of: Callable[..., Any],
    text: Iterable[str],
    source: str,
    tokenizer: PreTrainedTokenizerBase | None,
    config: SLEBConfig,
) -> LoadedWindows:
    if tokenizer is None:
        raise CalibrationError(f"{source} is text, but there is no tokenizer; give one, or calibrate on token ids.")
    if config.loss == "labels":
        raise no_labels(source)
    windows, has_bos = windows_of(text, tokenizer, config.window_length, config.max_windows, config.bos_per_window)
    return LoadedWindows(windows, source, has_bos)


def _mappings(rows: Iterable[Any], source: str) -> Iterator[Mapping[str, Any]]:
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise CalibrationError(
                f"Row {number} of {source} is of type {type(row).__name__}, where columns such as 'text' are "
                "expected; remove the row, or give all rows as objects with named fields."
            )
        yield row


def _reader_of(
    chosen: Choice,
    first: Mapping[str, Any],
    source: str,
    tokenizer: PreTrainedTokenizerBase | None,
    config: SLEBConfig,
) -> tuple[Callable[..., Iterable[Row]], str]:
    """Return the function that makes sequences of one row, and what it reads, in words for the report."""
    wants_labels, column = config.loss == "labels", chosen.column
    if chosen.kind == "input_ids":
        return rows_of_example, "input_ids and labels" if wants_labels else "input_ids"
    if tokenizer is None:
        raise CalibrationError(
            f"{source} holds {column}, but there is no tokenizer; give one, or calibrate on token ids."
        )
    by_template = is_chat(first[column]) or chosen.kind == "chat"
    rows = RowTokenizer(tokenizer, config.window_length, wants_labels, source)
    if by_template:
        rows.check_template(assistant_turns=chosen.kind == "chat")
    how = f", by {rows.template_name}" if by_template else ""
    if chosen.kind == "chat":
        return partial(rows.of_chat, column=column), f"{column}{how}{', assistant turns' if wants_labels else ''}"
    counted = ", completions" if wants_labels else ""
    return partial(rows.of_completion, as_chat=by_template), f"prompt and completion{how}{counted}"


def _described(loaded: LoadedWindows, columns: str, unused: tuple[str, ...]) -> LoadedWindows:
    if unused:
        warnings.warn(
            f"{loaded.source} holds {', '.join(unused)} as well, but {columns} is used; take the columns out that you "
            "do not mean, or name the one with the text (text_column).",
            stacklevel=3,
        )
        columns = f"{columns} (not {', '.join(unused)})"
    return LoadedWindows(loaded.windows, loaded.source, loaded.bos_per_window, columns)
