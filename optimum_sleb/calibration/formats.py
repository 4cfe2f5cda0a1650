"""The formats of local data files, by the suffixes of their names."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..errors import CalibrationError

COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")


@dataclass(frozen=True)
class Format:
    """One format, and how the library `datasets` reads it."""

    builder: str | None  # None: plain text, which is read piece by piece
    options: dict[str, Any] = field(default_factory=dict)
    takes_encoding: bool = True
    compresses_itself: bool = False


_CSV = {"chunksize": 1000, "keep_default_na": False}  # a text may be "NA" or "null"
_JSON, _TEXT = Format("json"), Format(None)
# Small batches, or a whole row group would be held at once.
_PARQUET = Format("parquet", {"batch_size": 100}, takes_encoding=False, compresses_itself=True)
FORMATS = {
    ".txt": _TEXT,
    ".text": _TEXT,
    ".raw": _TEXT,
    ".md": _TEXT,
    ".jsonl": _JSON,
    ".ndjson": _JSON,
    ".json": _JSON,
    ".csv": Format("csv", _CSV),
    ".tsv": Format("csv", {**_CSV, "sep": "\t"}),
    ".parquet": _PARQUET,
    ".arrow": Format("arrow", takes_encoding=False, compresses_itself=True),
}
KNOWN = f"{', '.join(FORMATS)}, also with {', '.join(COMPRESSIONS)} behind them"


def suffix_of(path: str) -> str:
    """Return the known suffix of a path in lower case, without that of a compression; empty where it has none.

    >>> suffix_of("data/Chat.JSONL.gz"), suffix_of("data/chat.docx")
    ('.jsonl', '')
    """
    stem, suffix = os.path.splitext(path.lower())
    if suffix in COMPRESSIONS:
        suffix = os.path.splitext(stem)[1]
    return suffix if suffix in FORMATS else ""


def format_of(files: Iterable[str], name: str) -> Format:
    """Return the format that all files share, and refuse files that cannot be read together, or at all."""
    suffix_by_format: dict[int, str] = {}
    for file in files:
        suffix = suffix_of(file)
        if not suffix:
            raise CalibrationError(f"{file!r} has no suffix of a data file; convert or rename it, to one of {KNOWN}.")
        if FORMATS[suffix].compresses_itself and not file.lower().endswith(suffix):
            raise CalibrationError(
                f"{file!r} is compressed, but {suffix} files compress themselves; take the outer compression away."
            )
        suffix_by_format.setdefault(id(FORMATS[suffix]), suffix)
    first, *others = suffix_by_format.values()
    if others:
        raise CalibrationError(
            f"{name!r} holds files of several formats ({', '.join((first, *others))}); name those of one, such as "
            f"'*{first}'."
        )
    return FORMATS[first]
