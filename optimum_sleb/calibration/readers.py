"""Rows and text, read as they are taken: of local files, of folders of `save_to_disk` and of the Hub."""

import glob
import os
from collections.abc import Iterator
from typing import Any

from ..errors import CalibrationError
from .hub_rows import open_on_hub, split_of
from .places import Files, OnHub, Saved
from .reading import Reading
from .texts import SEPARATOR, first_line

_CHARACTERS_AT_A_TIME = 2**16
_LEFT_OVER = "__index_level_0__"  # where pandas puts fields of a table that no header names
_HUB_BUFFER = 1000  # rows; the default of `datasets`


def rows_of(place: Files | Saved | OnHub, reading: Reading) -> Iterator[Any]:
    """Yield the rows of a place, those of the Hub shuffled by a buffer; whatever stops the reading names the row."""
    buffer, where, how = reading.shuffle_buffer or 0, place.name, "read"
    number = 0
    try:
        if isinstance(place, OnHub):
            rows = open_on_hub(place.name, reading)
            if reading.shuffle_buffer is None and not reading.is_evaluation:
                buffer = _HUB_BUFFER
        elif isinstance(place, Saved):
            rows = _open_saved(place, reading)
        else:
            where = place.files[0] if len(place.files) == 1 else place.name
            how = f"read as {place.format.builder}"
            rows = _open_files(place, reading)
        if buffer:
            rows = rows.shuffle(seed=reading.seed, buffer_size=buffer)
        for row in rows:
            if _LEFT_OVER in row:
                raise CalibrationError(
                    f"Row {number} of {where} has more fields than the header; put quotes around texts that hold the "
                    "separator, and a header above all columns."
                )
            yield row
            number += 1
    except (CalibrationError, MemoryError):
        raise
    except Exception as error:  # what zipfile, gzip, lzma, pyarrow and pandas raise has no common class
        told = first_line(error)
        remedy = "get it again"
        if "utf-8" in told.lower() or "utf8" in told.lower():
            remedy = "convert it to UTF-8" if reading.encoding else "name its encoding (encoding), or convert it"
        raise CalibrationError(f"{where} cannot be {how} from row {number} on ({told}); {remedy}.") from error
    if not number:
        raise CalibrationError(f"{where} holds no rows; give data with rows.")


def text_of(place: Files, reading: Reading) -> Iterator[str]:
    """Yield the pieces of plain text files, one file behind the other; a line can be longer than the memory."""
    for number, file in enumerate(place.files):
        if number:
            yield SEPARATOR
        yield from _pieces(file, reading.encoding)


def _open_files(place: Files, reading: Reading) -> Any:
    import datasets

    _learn_zstandard()
    encoding = {"encoding": reading.encoding} if reading.encoding and place.format.takes_encoding else {}
    return datasets.load_dataset(
        place.format.builder,
        data_files=[glob.escape(os.path.abspath(file)) for file in place.files],
        split="train",
        streaming=True,
        **place.format.options,
        **encoding,
    )


def _open_saved(place: Saved, reading: Reading) -> Any:
    import datasets

    saved = datasets.load_from_disk(place.folder)
    if isinstance(saved, datasets.DatasetDict):
        saved = split_of(saved, place.name, reading)
    elif reading.dataset_split not in (None, str(saved.split)):
        raise CalibrationError(
            f"{place.name} is one split, not several; leave dataset_split={reading.dataset_split!r} out."
        )
    return saved.to_iterable_dataset()


def _pieces(file: str, encoding: str | None) -> Iterator[str]:
    from fsspec.implementations.local import LocalFileSystem

    _learn_zstandard()
    name = encoding or "UTF-8"
    try:
        # "utf-8-sig" takes a byte order mark away, if there is one.
        with LocalFileSystem().open(
            os.path.abspath(file), "rt", compression="infer", encoding=encoding or "utf-8-sig"
        ) as opened:
            while piece := opened.read(_CHARACTERS_AT_A_TIME):
                if "\0" in piece:
                    raise CalibrationError(
                        f"{file} holds NUL characters, so it is not {name} text; name its encoding (encoding), or "
                        "convert it."
                    )
                yield piece
    except (CalibrationError, MemoryError):
        raise
    except UnicodeError as error:
        raise CalibrationError(
            f"{file} is not {name} text ({error}); name its encoding (encoding), or convert it."
        ) from error
    except Exception as error:  # what gzip, bz2, lzma and pyarrow raise has no common class
        raise CalibrationError(f"{file} cannot be read ({first_line(error)}); get it again.") from error


def _learn_zstandard() -> None:
    """Let fsspec, through which `datasets` reads as well, read .zst by pyarrow where `zstandard` is not installed."""
    import io

    import pyarrow
    from fsspec.compression import compr, register_compression

    if "zstd" not in compr:
        register_compression(
            "zstd",
            # The reader refuses to seek by the error that callers expect.
            lambda file, **_: io.BufferedReader(pyarrow.CompressedInputStream(file, "zstd")),
            "zst",
        )
