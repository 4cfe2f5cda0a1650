import struct
from pathlib import Path

import pytest

from optimum_sleb.models.gguf_header import blocks_in_gguf


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def gguf(*values: bytes, magic: bytes = b"GGUF", version: int = 3, count: int | None = None) -> bytes:
    return struct.pack("<4sIQQ", magic, version, 0, len(values) if count is None else count) + b"".join(values)


BLOCKS = text(b"llama.block_count") + struct.pack("<II", 4, 30)
NAME = text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama")
SMALL = text(b"general.x") + struct.pack("<IB", 0, 7) + text(b"general.y") + struct.pack("<Id", 12, 0.5)
ARRAY = text(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2**60)

FILES: dict[str, tuple[bytes, int | None]] = {
    "as llama.cpp writes it": (gguf(NAME, BLOCKS, ARRAY), 30),
    "other values before": (gguf(SMALL, b"", NAME, BLOCKS), 30),
    "an array before": (gguf(NAME, ARRAY, BLOCKS), None),
    "no number of blocks": (gguf(NAME), None),
    "another type": (gguf(text(b"llama.block_count") + struct.pack("<Iq", 11, 30)), None),
    "another format": (gguf(NAME, BLOCKS, magic=b"GGLA"), None),
    "a version to come": (gguf(NAME, BLOCKS, version=9), None),
    "empty": (b"", None),
    "cut": (gguf(NAME, BLOCKS)[:-1], None),
    "a text without an end": (gguf(struct.pack("<Q", 2**63), BLOCKS), None),
    "a count without an end": (gguf(count=2**63), None),
    "an unknown type": (gguf(text(b"x") + struct.pack("<I", 99), BLOCKS), None),
}


@pytest.mark.parametrize("what", FILES)
def test_number_of_blocks(what: str, tmp_path: Path) -> None:
    content, expected = FILES[what]
    (tmp_path / "model.gguf").write_bytes(content)
    assert blocks_in_gguf(tmp_path / "model.gguf") == expected


def test_no_file(tmp_path: Path) -> None:
    assert blocks_in_gguf(tmp_path / "nothing.gguf") is None
    assert blocks_in_gguf(tmp_path) is None
