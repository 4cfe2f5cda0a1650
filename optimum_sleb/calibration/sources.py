"""From any source of text or tokens to token windows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from ..config import SLEBConfig
from ..errors import CalibrationError
from ..records import CalibrationRecord
from .mixture import parts_of, shares_of
from .rows import Batches, Row, no_labels, rows_of_batches, rows_of_example, windows_of_rows
from .texts import (
    NAMED_DATASETS,
    SEPARATOR,
    column_of,
    local_evaluation_text,
    published_calibration_text,
    published_evaluation_text,
    read_text_file,
)
from .windows import TokenWindows


@dataclass(frozen=True)
class LoadedWindows:
    """Token windows, and what there is to say about where they come from.

    Attributes:
        windows: The windows.
        source: The data set, file or kind of object.
        bos_per_window: Whether every window starts with a BOS token that was put there.
    """

    windows: TokenWindows
    source: str
    bos_per_window: bool

    def record(self) -> CalibrationRecord:
        """What the report tells of them.

        Returns:
            The record.

        Example:
            ```python
            load_calibration(None, tokenizer, config).record().num_tokens
            ```
        """
        lengths = {len(window) for window in self.windows.windows}
        return CalibrationRecord(
            source=self.source,
            num_windows=len(self.windows),
            num_tokens=self.windows.num_tokens,
            window_length=lengths.pop() if len(lengths) == 1 else None,
            bos_per_window=self.bos_per_window,
            fingerprint=self.windows.fingerprint,
            num_labels=self.windows.num_labels,
        )


def load_calibration(data: Any, tokenizer: PreTrainedTokenizerBase | None, config: SLEBConfig) -> LoadedWindows:
    """Make token windows of calibration data.

    Texts are joined by a blank line, tokenised as one and cut into windows of `config.window_length`. The parts of a
    mixture give equal numbers of windows, as far as they go, one part behind the other. Data that are tokenised
    already keep their rows: each row is one window, whatever its length, without its padding. Sequences that were
    packed into one row (`position_ids` tell) are a window each. Such data may carry labels, on which
    `config.loss="labels"` measures.

    Args:
        data: `None` for the recipe's own `dataset`; else a data set name or file, a list of strings, a
            `datasets.Dataset` (or iterable one) with a text column or with `input_ids`, a `DataLoader` whose batches
            are or hold `input_ids` (or `Batches`, which name their source), a 2-D tensor or list of rows of token
            ids, or a 1-D tensor or list of token ids, which is cut into windows.
        tokenizer: The model's tokenizer; needed for text.
        config: The recipe: its data set, loss, window length, number of windows and BOS rule.

    Returns:
        The windows and their origin.

    Raises:
        CalibrationError: If the data are of an unknown kind, empty, or too short for one window, or lack the labels
            that the recipe measures on.

    Example:
        ```python
        loaded = load_calibration(["Some text.", "More text."], tokenizer, config)
        ```
    """
    if isinstance(data, str | Path):
        config = replace(config, dataset=str(data))
    if data is None or isinstance(data, str | Path):
        return _named_or_local(tokenizer, config)
    if isinstance(data, DataLoader):
        data = Batches(data, "a DataLoader")
    if isinstance(data, Batches):
        return _from_rows(rows_of_batches(data.batches, data.padding), data.source, config)
    if _is_dataset(data):
        return _from_dataset(data, tokenizer, config)
    if isinstance(data, Sequence) and data and isinstance(data[0], str):
        return _cut(SEPARATOR.join(data), f"a list of {len(data)} texts", tokenizer, config)
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
) -> LoadedWindows:
    """Make the token windows on which perplexity is reported.

    Args:
        dataset: `"wikitext2"`, `"c4"`, or the path of a local file.
        tokenizer: The model's tokenizer.
        window_length: Tokens in a window.
        max_windows: Use the first so many windows; `None` uses all (of C4, the published 256).
        bos_per_window: Where the tokenizer puts a BOS token in front of a text, start every window with one.
        text_column: The field that holds the text in a local `.jsonl` or `.parquet` file.
        data_dir: Folder that holds the named data sets as files; `None` takes them from the Hub.

    Returns:
        The windows and their origin.

    Raises:
        CalibrationError: If the data cannot be read or are too short for one window.

    Example:
        ```python
        loaded = load_evaluation("wikitext2", tokenizer)
        ```
    """
    if dataset in NAMED_DATASETS:
        max_windows = max_windows or NAMED_DATASETS[dataset].evaluation_windows
        if data_dir is None:
            text = published_evaluation_text(dataset)
        else:
            text, dataset = local_evaluation_text(dataset, data_dir)
    else:
        text = read_text_file(_local_file(dataset), text_column)
    ids, bos_id = _tokenize(text, tokenizer, bos_per_window)
    windows = TokenWindows.from_stream(ids, window_length, max_windows, bos_id)
    return LoadedWindows(windows, dataset, bos_per_window=bos_id is not None)


def _named_or_local(tokenizer: PreTrainedTokenizerBase | None, config: SLEBConfig) -> LoadedWindows:
    parts = parts_of(config.dataset)
    shares = shares_of(config.max_windows, len(parts))
    loaded = [
        _cut(_named_or_local_text(part, config), part, tokenizer, replace(config, max_windows=share))
        for part, share in zip(parts, shares, strict=True)
    ]
    windows = TokenWindows(tuple(window for part in loaded for window in part.windows.windows))
    return LoadedWindows(windows, config.dataset, loaded[0].bos_per_window)


def _named_or_local_text(name: str, config: SLEBConfig) -> str:
    if name in NAMED_DATASETS:
        return published_calibration_text(name, config.num_samples, config.seed)
    return read_text_file(_local_file(name), config.text_column)


def _local_file(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise CalibrationError(
            f"{name!r} is neither a known data set ({', '.join(NAMED_DATASETS)}) nor a file; pass the path of a "
            ".txt, .jsonl or .parquet file, or several joined by +."
        )
    return path


def _cut(text: str, source: str, tokenizer: PreTrainedTokenizerBase | None, config: SLEBConfig) -> LoadedWindows:
    if tokenizer is None:
        raise CalibrationError(f"{source} is text, but there is no tokenizer; give one, or calibrate on token ids.")
    if config.loss == "labels":
        raise no_labels(source)
    ids, bos_id = _tokenize(text, tokenizer, config.bos_per_window)
    windows = TokenWindows.from_stream(ids, config.window_length, config.max_windows, bos_id)
    return LoadedWindows(windows, source, bos_per_window=bos_id is not None)


def _tokenize(text: str, tokenizer: PreTrainedTokenizerBase, bos_per_window: bool) -> tuple[Tensor, int | None]:
    """Token ids of a text, of shape (tokens,), and the BOS token that each window must begin with, if any."""
    # Asked of the tokenizer itself: not every tokenizer that knows a BOS token puts it there (GPT-2's does not).
    adds_bos = tokenizer.bos_token_id is not None and tokenizer("a").input_ids[0] == tokenizer.bos_token_id
    bos_id = tokenizer.bos_token_id if adds_bos and bos_per_window else None
    # `verbose=False`: the text is longer than the model's context on purpose.
    encoded = tokenizer(text, add_special_tokens=bos_id is None, verbose=False)
    return torch.tensor(encoded.input_ids, dtype=torch.long), bos_id


def _is_dataset(data: Any) -> bool:
    import datasets

    if isinstance(data, datasets.DatasetDict | datasets.IterableDatasetDict):
        raise CalibrationError(f"A DatasetDict has several splits ({', '.join(data)}); pass one of them.")
    return isinstance(data, datasets.Dataset | datasets.IterableDataset)


def _from_dataset(data: Any, tokenizer: PreTrainedTokenizerBase | None, config: SLEBConfig) -> LoadedWindows:
    if "input_ids" in (data.column_names or ()):
        return _from_rows(chain.from_iterable(map(rows_of_example, data)), "a tokenised Dataset", config)
    text = SEPARATOR.join(column_of(data, config.text_column, "the Dataset"))
    return _cut(text, "a Dataset", tokenizer, config)


def _from_rows(rows: Iterable[Row], source: str, config: SLEBConfig) -> LoadedWindows:
    windows = windows_of_rows(rows, config.loss, config.max_windows, source)
    return LoadedWindows(windows, source, bos_per_window=False)


def _from_token_ids(data: Any, config: SLEBConfig) -> LoadedWindows:
    source = f"token ids ({type(data).__name__})"
    try:
        has_rows = isinstance(data, Sequence) and len(data) > 0 and isinstance(data[0], Sequence | Tensor)
        tensors = [torch.as_tensor(row) for row in data] if has_rows else [torch.as_tensor(data)]
    except (TypeError, ValueError, RuntimeError) as error:
        raise CalibrationError(_UNKNOWN_KIND.format(kind=type(data).__name__)) from error
    if any(tensor.dtype.is_floating_point or tensor.dtype.is_complex for tensor in tensors):
        raise CalibrationError(_UNKNOWN_KIND.format(kind=f"{type(data).__name__} without token ids"))
    tensors = [tensor.long().cpu() for tensor in tensors]
    if config.loss == "labels":
        raise no_labels(source)
    if not has_rows and tensors[0].dim() == 1:
        windows = TokenWindows.from_stream(tensors[0], config.window_length, config.max_windows)
        return LoadedWindows(windows, source, bos_per_window=False)
    rows = tensors if has_rows else list(tensors[0])
    if any(row.dim() != 1 for row in rows):
        raise CalibrationError(_UNKNOWN_KIND.format(kind=f"{type(data).__name__} that is not rows of token ids"))
    return LoadedWindows(TokenWindows.from_rows(rows, config.max_windows), source, bos_per_window=False)


_UNKNOWN_KIND = (
    "Calibration data of kind {kind} are not supported; give a data set name, a file, a list of strings, a Dataset, a "
    "DataLoader or token ids."
)
