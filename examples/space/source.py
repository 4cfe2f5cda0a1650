"""The model that a visitor names or uploads."""

import re
import shutil
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.utils import httpx
from limits import Limits, PageError

from optimum_sleb import SLEBPruner

_WEIGHTS = (".safetensors", ".gguf")
_HUB_NAME = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_MOST_FILES = 1000


@dataclass(frozen=True)
class Source:
    """Where a model is loaded from."""

    name: str  # on the Hub, or of a folder
    shown: str
    gguf_file: str | None = None

    def load(self) -> SLEBPruner:
        """Return a pruner with the model as it is there, without the server's token and without foreign code."""
        arguments: dict[str, Any] = {"gguf_file": self.gguf_file} if self.gguf_file else {"token": False}
        return SLEBPruner.from_pretrained(self.name, dtype="auto", **arguments)


def source_of(name: str | None, archive: str | None, folder: Path, limits: Limits) -> Source:
    """Return the model of the form: an uploaded archive, unpacked into `folder`, or a name on the Hub."""
    name = (name or "").strip()
    if archive and name:
        raise PageError(f"There are two models, the upload and {name!r}; clear one of them.")
    if archive:
        return _source_in(_unpack(Path(archive), folder, limits), limits)
    if not name:
        raise PageError(
            "There is no model yet; name one on the Hub (such as HuggingFaceTB/SmolLM2-135M), or upload one."
        )
    if limits.folders and Path(name).is_dir():
        return _source_in(Path(name), limits)
    if not _HUB_NAME.fullmatch(name) or Path(name).exists():
        raise PageError(f"{name[:120]!r} is no name on the Hub; it looks like HuggingFaceTB/SmolLM2-135M.")
    # What the Hub does not tell about is left to the loading, which has a sentence for it.
    with suppress(OSError, ValueError, httpx.HTTPError):
        files = HfApi(token=False).model_info(name, files_metadata=True).siblings or []
        limits.check_bytes(name, sum(file.size or 0 for file in files if file.rfilename.endswith(".safetensors")))
    return Source(name, name)


def _source_in(folder: Path, limits: Limits) -> Source:
    """Return the model of a folder: a checkpoint of transformers, or a single GGUF file."""
    limits.check_bytes(folder.name, sum(file.stat().st_size for file in folder.iterdir() if file.suffix in _WEIGHTS))
    packed = sorted(file.name for file in folder.glob("*.gguf"))
    is_gguf = len(packed) == 1 and not any(folder.glob("*.safetensors"))
    return Source(str(folder), folder.name, packed[0] if is_gguf else None)


def _unpack(archive: Path, folder: Path, limits: Limits) -> Path:
    """Unpack an archive, and return the folder in it that holds the model."""
    target = folder / (re.sub(r"[^\w.-]", "-", archive.stem).strip(".") or "model")
    shutil.rmtree(target, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            if len(entries) > _MOST_FILES:
                raise PageError(f"{archive.name} holds {len(entries):,} files; pack the model's folder alone.")
            # No more than an entry declares is unpacked; names that lead out of the folder, and links, lose that.
            limits.check_bytes(archive.name, sum(entry.file_size for entry in entries))
            opened.extractall(target)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, OSError) as error:
        raise PageError(f"{archive.name} cannot be unpacked ({error}); pack the model's folder as a zip.") from error
    places = [file.parent for pattern in ("config.json", "*.gguf") for file in target.rglob(pattern)]
    if not places:
        raise PageError(
            f"{archive.name} holds no model: there is no config.json in it; pack the model's folder as a zip."
        )
    return min(places, key=lambda place: len(place.parts))
