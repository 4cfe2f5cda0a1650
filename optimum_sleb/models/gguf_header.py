"""The number of blocks in the header of a GGUF file: reading all of it, with the vocabulary, takes many seconds."""

import struct
from pathlib import Path
from typing import BinaryIO

# Sizes in bytes of the types of a value, by their numbers in the format; 8 is a string, 9 an array.
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _UINT32 = 8, 4
_MOST_BYTES = 2**20  # of a text


def blocks_in_gguf(file: Path) -> int | None:
    """Return the number of blocks; `None` where it does not stand before the first array, or the file is no GGUF."""
    try:
        with open(file, "rb") as opened:
            magic, version, _, num_values = struct.unpack("<4sIQQ", opened.read(24))
            for _ in range(min(num_values, 1_000) if magic == b"GGUF" and version in (2, 3) else 0):
                name = _text(opened)
                (kind,) = struct.unpack("<I", opened.read(4))
                if name.endswith(b".block_count") and kind == _UINT32:
                    return int(struct.unpack("<I", opened.read(4))[0])
                if kind == _STRING:
                    _text(opened)
                elif kind in _SIZES:
                    opened.seek(_SIZES[kind], 1)
                else:
                    break
    except (OSError, struct.error, ValueError):
        pass
    return None


def _text(opened: BinaryIO) -> bytes:
    (length,) = struct.unpack("<Q", opened.read(8))
    if length > _MOST_BYTES:
        raise ValueError(length)
    return opened.read(length)
