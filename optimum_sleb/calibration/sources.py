"""Calibration and evaluation data of any kind, tokenised and cut into token windows."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy import ndarray
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from ..config import SLEBConfig
from ..errors import CalibrationError
from .columns import cut_text, from_rows, load_rows
from .evaluation_texts import iter_text, local_evaluation_text
from .loaded import LoadedWindows
from .named import load_named
from .places import Published, find
from .reading import Reading
from .rows import Batches, no_labels, rows_of_batches, token_ids
from .texts import NAMED_DATASETS, checked_document, joined, published_evaluation_text
from .tokens import windows_of_text
from .windows import TokenWindows


def load_calibration(data: Any, tokenizer: PreTrainedTokenizerBase | None, config: SLEBConfig) -> LoadedWindows:
    """Make token windows of calibration data; `data=None` uses the recipe's `dataset`.
    Texts are joined by a blank line, tokenised as one and cut into windows. Each row of tokenised data is one window,
    of its own length, without padding; a row of packed sequences (`position_ids`) is one window per sequence.
    """
    if isinstance(data, str | Path):
        config = replace(config, dataset=str(data))
    if data is None or isinstance(data, str | Path):
        return load_named(tokenizer, config)
    if isinstance(data, DataLoader):
        data = Batches(data, "a DataLoader")
    if isinstance(data, Batches):
        return from_rows(rows_of_batches(data.batches, data.padding), data.source, config)
    if _is_dataset(data):
        return load_rows(data, "the Dataset", tokenizer, config)
    if isinstance(data, list | tuple) and any(isinstance(item, str) for item in data[:_LOOKED_AT]):
        documents = (checked_document(text, f"Item {number} of the list is") for number, text in enumerate(data))
        return cut_text(joined(documents), f"a list of {len(data)} texts", tokenizer, config)
    return _from_token_ids(data, config)


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


def _is_dataset(data: Any) -> bool:
    import datasets

    if isinstance(data, datasets.DatasetDict | datasets.IterableDatasetDict):
        raise CalibrationError(f"A DatasetDict has several splits ({', '.join(data)}); pass one of them.")
    return isinstance(data, datasets.Dataset | datasets.IterableDataset)


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


# Items of a list that decide what it holds, so that a wrong first one is named as such.
_LOOKED_AT = 100
_TOKEN_IDS = (list, tuple, range, Tensor, ndarray)
_UNKNOWN_KIND = (
    "Calibration data of kind {kind} are not supported; give a data set name, a file, a list of strings, a Dataset, a "
    "DataLoader or token ids."
)
