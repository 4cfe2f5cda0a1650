"""Files as wholes: their hash, and replacement of their content in one step."""

import hashlib
import os
from pathlib import Path


def file_sha256(file: Path) -> bytes:
    """Return the SHA-256 of a file, 32 bytes."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()


def replace_file(file: Path, text: str) -> Path:
    """Write a file so that a reader sees the old or the new content, never a part: to a sibling, which is renamed.
    Return the file."""
    fresh = file.with_name(f".{file.name[:50]}.{os.getpid()}.new")  # two processes may replace it
    with fresh.open("w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    return fresh.replace(file)
