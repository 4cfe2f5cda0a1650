"""Rows of a data set turned into token windows, by what their columns hold: the conventions are those of TRL."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..config import SLEBConfig
from ..errors import CalibrationError
from .chats import RowTokenizer, is_chat
from .loaded import LoadedWindows
from .rows import Row, no_labels, rows_of_example, windows_of_rows
from .texts import SEPARATOR, iter_column, joined, rows_read
from .tokens import windows_of_documents, windows_of_text

EOS = "eos"  # as `document_separator`: the tokenizer's token, not this text
_CHATS = ("messages", "conversations")
# What rows can hold. Where they hold several, the first of these is used; completions go with their prompts.
_KINDS = ("input_ids", "completion", *_CHATS, "text")


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
    column, unused = column_of(first, source, config.text_column)
    read = chain([first], read)
    if column not in _KINDS[:-1]:
        loaded = cut_documents(iter_column(read, column, source), source, tokenizer, config)
        return _described(loaded, column, unused)
    if config.document_separator is not None:
        warnings.warn(
            f"document_separator has no effect on {source}, whose rows ({column}) are windows of their own.",
            stacklevel=2,
        )
    row_of, what = _reader_of(column, first, source, tokenizer, config)
    numbered = (row_of(row, where=f"Row {number} of {source}") for number, row in enumerate(read))
    return _described(from_rows(chain.from_iterable(numbered), source, config), what, unused)


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


def column_of(first: Mapping[str, Any], source: str, text_column: str) -> tuple[str, list[str]]:
    """Return the column to read, by the first row, and those beside it that hold the same in another form."""
    if text_column != SLEBConfig.text_column:
        present = [text_column] if text_column in first else []
    else:
        present = [name for name in _KINDS if _holds(first, name)]
        if not present:  # what is wrong with this row is said by those who read a column of its name
            present = [name for name in _KINDS if name in first and (name != "completion" or "prompt" in first)][:1]
    if not present:
        hint = " (a single chat is a list of one: [messages])" if "role" in first else ""
        raise CalibrationError(
            f"Row 0 of {source} has no field {text_column!r}, only {', '.join(map(repr, first))}; name the one with "
            f"the text (text_column), or give messages, prompt and completion, or input_ids{hint}."
        )
    return present[0], present[1:]


def _holds(row: Mapping[str, Any], name: str) -> bool:
    if name in _CHATS:
        return is_chat(row.get(name))
    return row.get(name) is not None and (name != "completion" or row.get("prompt") is not None)


def _reader_of(
    column: str,
    first: Mapping[str, Any],
    source: str,
    tokenizer: PreTrainedTokenizerBase | None,
    config: SLEBConfig,
) -> tuple[Callable[..., Iterable[Row]], str]:
    """Return the function that makes sequences of one row, and what it reads, in words for the report."""
    wants_labels = config.loss == "labels"
    if column == "input_ids":
        return rows_of_example, "input_ids and labels" if wants_labels else "input_ids"
    if tokenizer is None:
        raise CalibrationError(
            f"{source} holds {column}, but there is no tokenizer; give one, or calibrate on token ids."
        )
    by_template = column in _CHATS or is_chat(first[column])
    rows = RowTokenizer(tokenizer, config.window_length, wants_labels, source)
    if by_template:
        rows.check_template(assistant_turns=column in _CHATS)
    how = f", by {rows.template_name}" if by_template else ""
    if column in _CHATS:
        return partial(rows.of_chat, column=column), f"{column}{how}{', assistant turns' if wants_labels else ''}"
    counted = ", completions" if wants_labels else ""
    return partial(rows.of_completion, as_chat=by_template), f"prompt and completion{how}{counted}"


def _described(loaded: LoadedWindows, columns: str, unused: list[str]) -> LoadedWindows:
    if unused:
        warnings.warn(
            f"{loaded.source} holds {', '.join(unused)} as well, but {columns} is used; take the columns out that you "
            "do not mean, or name the one with the text (text_column).",
            stacklevel=3,
        )
        columns = f"{columns} (not {', '.join(unused)})"
    return LoadedWindows(loaded.windows, loaded.source, loaded.bos_per_window, columns)
