"""How the data of a recipe are read: which part of a data set, in which encoding, in which order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from ..config import SLEBConfig
from ..errors import ConfigError
from .places import Files, OnHub, Place, Saved


@dataclass(frozen=True)
class Reading:
    """The options of reading, for the places that have a use for them; `None` is the default of each."""

    dataset_config: str | None = None
    dataset_split: str | None = None
    dataset_revision: str | None = None
    encoding: str | None = None
    shuffle_buffer: int | None = None
    seed: int = 0
    is_evaluation: bool = False  # the split for tests, in its order

    def __post_init__(self) -> None:
        if self.encoding is not None:
            try:
                "a".encode(self.encoding)
            except (LookupError, ValueError):
                raise ConfigError(
                    f"There is no encoding {self.encoding!r}; name one such as utf-8, latin-1 or cp1252 (encoding)."
                ) from None

    @classmethod
    def of(cls, config: SLEBConfig) -> Self:
        """Return the options of a recipe."""
        return cls(
            config.dataset_config,
            config.dataset_split,
            config.dataset_revision,
            config.encoding,
            config.shuffle_buffer,
            config.seed,
        )

    def check(self, places: Sequence[Place]) -> None:
        """Refuse an option that none of the places has a use for, so that nothing is left out silently."""
        for option, (takes, what) in _TAKERS.items():
            value = getattr(self, option)
            if value is not None and not any(takes(place) for place in places):
                names = ", ".join(repr(place.name) for place in places) or "what is read"
                raise ConfigError(f"{option}={value!r} is for {what}, and there is none in {names}; leave it out.")

    def options_for(self, place: Place) -> dict[str, Any]:
        """Return the options that are given and that a place has a use for."""
        values = {option: getattr(self, option) for option, (takes, _) in _TAKERS.items() if takes(place)}
        return {option: value for option, value in values.items() if value is not None}


def _is_on_hub(place: Place) -> bool:
    return isinstance(place, OnHub)


_TAKERS = {
    "dataset_config": (_is_on_hub, "a data set of the Hub"),
    "dataset_revision": (_is_on_hub, "a data set of the Hub"),
    "dataset_split": (
        lambda place: isinstance(place, OnHub | Saved),
        "a data set of the Hub or a folder of save_to_disk",
    ),
    "encoding": (
        lambda place: isinstance(place, Files) and place.format.takes_encoding,
        "files of text, .json, .jsonl, .csv or .tsv",
    ),
    "shuffle_buffer": (
        lambda place: isinstance(place, OnHub | Saved) or (isinstance(place, Files) and place.has_rows),
        "data with rows that are not read by a published protocol",
    ),
}
