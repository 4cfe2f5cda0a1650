"""What the page allows, so that one visitor cannot take the machine from all others."""

import os
from dataclasses import dataclass
from typing import Self

from optimum_sleb import SLEBError


class PageError(SLEBError):
    """The visitor asked for what the page does not do; the message says what to do instead."""


@dataclass(frozen=True)
class Limits:
    """Limits of the page; each is read from an environment variable."""

    gigabytes: float = 2.0  # of a model's weight files, and of an uploaded archive
    minutes: float = 15.0  # of a search; what it has found by then is kept
    letters: int = 400_000  # of the calibration text
    folders: bool = False  # whether the model may be a folder of this machine: on your own only

    @classmethod
    def of_environment(cls) -> Self:
        """Return the limits that `SLEB_SPACE_GIGABYTES`, `_MINUTES`, `_LETTERS` and `_FOLDERS` set."""
        return cls(
            gigabytes=float(os.environ.get("SLEB_SPACE_GIGABYTES", cls.gigabytes)),
            minutes=float(os.environ.get("SLEB_SPACE_MINUTES", cls.minutes)),
            letters=int(os.environ.get("SLEB_SPACE_LETTERS", cls.letters)),
            folders=os.environ.get("SLEB_SPACE_FOLDERS") == "1",
        )

    def check_bytes(self, what: str, size: int) -> None:
        """Refuse a model that is too large for this page."""
        if size > self.gigabytes * 1e9:
            raise PageError(
                f"{what} has {size / 1e9:.2f} GB of weights, and this page takes at most {self.gigabytes:g} GB; take "
                "a smaller model, or run the page on your own machine (make space)."
            )

    def check_text(self, size: int) -> None:
        """Refuse a text that is too long for this page."""
        if size > self.letters:
            raise PageError(
                f"The text has {size:,} letters, and this page takes at most {self.letters:,}; a part of it will do."
            )
