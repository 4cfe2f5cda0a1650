"""Calibration data in memory: data sets, DataLoaders, lists and generators of rows, and token ids."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, Literal

from numpy import ndarray
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from ..config import SLEBConfig
from ..errors import CalibrationError
from .columns import cut_documents, from_rows, load_rows
from .kinds import is_chat
from .loaded import LoadedWindows
from .rows import Batches, no_labels, rows_of_batches, token_ids
from .texts import checked_document, first_line, rows_read
from .windows import TokenWindows

Kind = Literal["texts", "rows", "chats", "rows of token ids"]
# Items of a list that decide what it holds, so that a wrong first one is named as such.
_LOOKED_AT = 100
_TOKEN_IDS = (list, tuple, range, Tensor, ndarray)


def load_in_memory(data: Any, tokenizer: PreTrainedTokenizerBase | None, config: SLEBConfig) -> LoadedWindows:
    """Make token windows of data in memory; of generators and streams only so much is taken as the windows need."""
    if isinstance(data, DataLoader):
        data = Batches(data, "a DataLoader")
    if isinstance(data, Batches):
        return from_rows(rows_of_batches(data.batches, data.padding), data.source, config)
    if _is_dataset(data):
        loaded = load_rows(data, "the Dataset", tokenizer, config)
        tokenised = (loaded.columns or "").startswith("input_ids")
        return replace(loaded, source="a tokenised Dataset" if tokenised else "a Dataset")
    if inspect.isroutine(data) or isinstance(data, partial):
        return _from_generator(_called(data), tokenizer, config)
    if isinstance(data, Iterator):
        return _from_generator(data, tokenizer, config)
    if isinstance(data, list | tuple):
        kinds = {_kind_of(item) for item in data[:_LOOKED_AT]}
        for kind in _NOT_TOKEN_IDS:
            if kind in kinds:
                return _from_items(data, kind, "the list", f"a list of {len(data)} {kind}", tokenizer, config)
    return _from_token_ids(data, config)


def _is_dataset(data: Any) -> bool:
    import datasets

    if isinstance(data, datasets.DatasetDict | datasets.IterableDatasetDict):
        raise CalibrationError(f"A DatasetDict has several splits ({', '.join(map(str, data))}); pass one of them.")
    return isinstance(data, datasets.Dataset | datasets.IterableDataset)


def _called(function: Callable[[], Any]) -> Iterator[Any]:
    """Return the items of a generator function, or of another function that gives rows."""
    try:
        items = function()
        if isinstance(items, str | bytes | Mapping):
            raise TypeError(f"it returns a {type(items).__name__}, not rows")
        return iter(items)
    except MemoryError:
        raise
    except Exception as error:
        raise CalibrationError(
            f"The function for calibration data gives no rows when it is called ({first_line(error)}); give one "
            "without arguments that yields strings, rows, chats or token ids."
        ) from error


def _from_generator(
    items: Iterator[Any], tokenizer: PreTrainedTokenizerBase | None, config: SLEBConfig
) -> LoadedWindows:
    read = rows_read(items, "the generator")
    first = next(read, None)
    if first is None:
        raise CalibrationError(
            "The generator gives no rows, or was read before; give the function that makes it, which is called anew."
        )
    kind = _kind_of(first)
    if kind is None:
        raise CalibrationError(
            f"Row 0 of the generator is of type {type(first).__name__}; give strings, rows of named columns, chats "
            "or rows of token ids."
        )
    return _from_items(chain([first], read), kind, "the generator", f"a generator of {kind}", tokenizer, config)


def _kind_of(item: Any) -> Kind | None:
    """Return what one item of a list or generator is; `None` for what cannot be one."""
    if isinstance(item, str):
        return "texts"
    if isinstance(item, Mapping):
        return "rows"
    if is_chat(item):
        return "chats"
    return "rows of token ids" if isinstance(item, _TOKEN_IDS) else None


# In the order in which one such item decides for a list.
_NOT_TOKEN_IDS: tuple[Kind, ...] = ("texts", "rows", "chats")


def _from_items(
    items: Iterable[Any],
    kind: Kind,
    where: str,
    source: str,
    tokenizer: PreTrainedTokenizerBase | None,
    config: SLEBConfig,
) -> LoadedWindows:
    """Make token windows of items that are all of one kind."""
    if kind == "texts":
        documents = (checked_document(text, f"Item {number} of {where} is") for number, text in enumerate(items))
        return cut_documents(documents, source, tokenizer, config)
    if kind != "rows":
        column = "messages" if kind == "chats" else "input_ids"
        items = ({column: item} for item in items)
        config = replace(config, text_column=SLEBConfig.text_column)  # these rows have no text
    loaded = load_rows(items, where, tokenizer, config)
    return replace(loaded, source=source)


def _from_token_ids(data: Any, config: SLEBConfig) -> LoadedWindows:
    source = f"token ids ({type(data).__name__})"
    if not isinstance(data, _TOKEN_IDS) or (isinstance(data, list | tuple | range) and not data):
        raise CalibrationError(_UNKNOWN_KIND.format(kind=type(data).__name__))
    has_rows = isinstance(data, list | tuple) and any(isinstance(row, _TOKEN_IDS) for row in data[:_LOOKED_AT])
    if config.loss == "labels":
        raise no_labels(source)
    if has_rows:
        rows: Iterable[Tensor] = (token_ids(row, f"Row {number}") for number, row in enumerate(data))
    else:
        ids = token_ids(data, f"The {type(data).__name__} of token ids")
        if ids.dim() == 1:
            windows = TokenWindows.from_stream(ids, config.window_length, config.max_windows)
            return LoadedWindows(windows, source, bos_per_window=False)
        rows = ids
    return LoadedWindows(TokenWindows.from_rows(_flat(rows, data), config.max_windows), source, bos_per_window=False)


def _flat(rows: Iterable[Tensor], data: Any) -> Iterator[Tensor]:
    for row in rows:
        if row.dim() != 1:
            raise CalibrationError(_UNKNOWN_KIND.format(kind=f"{type(data).__name__} that is not rows of token ids"))
        yield row


_UNKNOWN_KIND = (
    "Calibration data of kind {kind} are not supported; give a data set name, a file, a Dataset, a DataLoader, token "
    "ids, or a list or generator function of strings, chats, rows or token ids."
)
