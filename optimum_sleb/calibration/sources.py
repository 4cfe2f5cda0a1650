"""Calibration and evaluation data of any kind, tokenised and cut into token windows."""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..config import SLEBConfig
from ..errors import CalibrationError
from .columns import cut_documents, cut_text, load_rows
from .in_memory import load_in_memory
from .loaded import LoadedWindows, joined_windows
from .mixture import split_mixture, windows_per_part
from .texts import (
    NAMED_DATASETS,
    iter_text_file,
    local_evaluation_text,
    published_calibration_documents,
    published_evaluation_text,
    rows_of_file,
)
from .tokens import windows_of_text


def load_calibration(data: Any, tokenizer: PreTrainedTokenizerBase | None, config: SLEBConfig) -> LoadedWindows:
    """Make token windows of calibration data; `data=None` uses the recipe's `dataset`.
    Texts are joined by a blank line, tokenised as one and cut into windows. Each row of other data is one window, of
    its own length, without padding; a row of packed sequences (`position_ids`) is one window per sequence.
    """
    if isinstance(data, str | Path):
        config = replace(config, dataset=str(data))
    if data is None or isinstance(data, str | Path):
        return _named_or_local(tokenizer, config)
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
) -> LoadedWindows:
    """Make the token windows on which perplexity is reported, of `"wikitext2"`, `"c4"` or a local file.
    `data_dir` is a folder with the named data sets as files (`None`: the Hub). `max_windows=None` uses all windows, or
    the published 256 of C4.
    """
    if dataset in NAMED_DATASETS:
        max_windows = max_windows or NAMED_DATASETS[dataset].evaluation_windows
        if data_dir is None:
            pieces: Iterable[str] = [published_evaluation_text(dataset)]
        else:
            text, dataset = local_evaluation_text(dataset, data_dir)
            pieces = [text]
    else:
        pieces = iter_text_file(_local_file(dataset), text_column)
    windows, has_bos = windows_of_text(pieces, tokenizer, window_length, max_windows, bos_per_window)
    return LoadedWindows(windows, dataset, has_bos)


def _named_or_local(tokenizer: PreTrainedTokenizerBase | None, config: SLEBConfig) -> LoadedWindows:
    parts = split_mixture(config.dataset)
    shares = windows_per_part(config.max_windows, len(parts))
    loaded = [
        _load_part(part, tokenizer, replace(config, max_windows=share))
        for part, share in zip(parts, shares, strict=True)
    ]
    return joined_windows(loaded, config.dataset)


def _load_part(name: str, tokenizer: PreTrainedTokenizerBase | None, config: SLEBConfig) -> LoadedWindows:
    if name in NAMED_DATASETS:
        documents = published_calibration_documents(name, config.num_samples, config.seed)
        return cut_documents(documents, name, tokenizer, config, NAMED_DATASETS[name].separator)
    path = _local_file(name)
    rows = rows_of_file(path)
    if rows is not None:
        return load_rows(rows, name, tokenizer, config)
    return cut_text(iter_text_file(path, config.text_column), name, tokenizer, config)


def _local_file(name: str) -> Path:
    path = Path(name)
    if not os.path.isfile(path):
        raise CalibrationError(
            f"{name!r} is neither a known data set ({', '.join(NAMED_DATASETS)}) nor a file; pass the path of a "
            ".txt, .jsonl or .parquet file, or several joined by +."
        )
    return path
