"""Calibration data by their names: each part of a mixture becomes token windows, which stand one behind the other."""

from collections.abc import Callable
from dataclasses import replace
from warnings import warn

from transformers import PreTrainedTokenizerBase

from ..config import SLEBConfig
from ..errors import CalibrationError
from .columns import cut_documents, cut_text, load_rows
from .loaded import LoadedWindows, joined_windows
from .mixture import parts_of, weights_of, windows_per_part
from .places import Files, Place, Published, find
from .readers import rows_of, text_of
from .reading import Reading
from .texts import NAMED_DATASETS, published_calibration_documents


def load_part(
    place: Place, reading: Reading, tokenizer: PreTrainedTokenizerBase | None, config: SLEBConfig
) -> LoadedWindows:
    """Make the token windows of one part of a mixture, which lies at a place."""
    if isinstance(place, Published):
        documents = published_calibration_documents(place.name, config.num_samples, config.seed)
        return cut_documents(documents, place.name, tokenizer, config, NAMED_DATASETS[place.name].separator)
    if isinstance(place, Files) and not place.has_rows:
        if config.document_separator is not None:
            warn(f"document_separator has no effect on {place.name}: text files have no rows.", stacklevel=2)
        return cut_text(text_of(place, reading), place.name, tokenizer, config)
    return load_rows(rows_of(place, reading), place.name, tokenizer, config)


def load_named(
    tokenizer: PreTrainedTokenizerBase | None, config: SLEBConfig, load: Callable[..., LoadedWindows] = load_part
) -> LoadedWindows:
    """Make token windows of the data that the recipe's `dataset` names; `load` makes those of one part."""
    parts = parts_of(config.dataset)
    places = [find(part.name) for part in parts]
    reading = Reading.of(config)
    reading.check(places)
    weights = weights_of(parts)
    shares = windows_per_part(config.max_windows, len(parts), weights)
    loaded = [
        load(place, reading, tokenizer, replace(config, max_windows=share))
        for place, share in zip(places, shares, strict=True)
    ]
    if weights is not None and len(parts) > 1:
        _check_shares(loaded, shares)
    source = "+".join(part.renamed(place.name) for part, place in zip(parts, places, strict=True))
    return joined_windows(loaded, source)


def _check_shares(loaded: list[LoadedWindows], shares: list[int | None]) -> None:
    for part, share in zip(loaded, shares, strict=True):
        if share is not None and len(part.windows) < share:
            raise CalibrationError(
                f"{part.source} gives only {len(part.windows)} of the {share} windows that its weight in the mixture "
                "asks for; lower max_windows or its weight."
            )
