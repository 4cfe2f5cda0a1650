"""Files of a dense model that its weights, config and card do not replace: they travel with the pruned model."""

import os
import re
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import httpx, validate_repo_id
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from ..runtime.secrets import without_secrets

# Names are matched whole, so none has a `/` but those in the one folder, and none is code or weights. A file such as
# Mistral's params.json stays behind: it tells runtimes how many blocks the dense model has.
_OF_TOKENIZER = re.compile(
    r"tokenizer(_config)?\.json|tokenizer\.model(\.v\d+(m\d+)?)?|(spiece|sentencepiece(\.bpe)?)\.model|"
    r"[\w-]+\.tiktoken|tekken\.json|vocab\.(json|txt|bpe)|merges\.txt|(added_tokens|special_tokens_map)\.json|"
    r"chat_template\.json|(additional_chat_templates/)?[\w-]+\.jinja",
    re.ASCII,
)
_OF_MODEL = re.compile(
    r"generation_config\.json|(\w+_)?(pre)?processor_config\.json|"
    r"([a-z0-9]+[-_])?(licen[cs]e|notice|copying|use[-_]policy)s?([-_ ][\w -]*(\.\d+)*)?(\.(txt|md|rst|pdf|html?))?",
    re.ASCII | re.IGNORECASE,
)
_FOLDER = "additional_chat_templates"
_MOST_BYTES = 64 * 2**20  # the largest tokenizers have half of that
_MOST_FILES = 100


@dataclass(frozen=True)
class Origin:
    """Where a model was loaded from, and the tokenizer with it."""

    name: str  # a folder, or a name on the Hub; empty where neither is known
    # Arguments of `hf_hub_download`; not shown, because a token may be among them.
    source: dict[str, Any] = field(default_factory=dict, repr=False)
    tokenizer: tuple[object, ...] | None = None  # state of the tokenizer from there; None: it came from elsewhere

    @classmethod
    def of_loading(
        cls,
        name: str,
        arguments: dict[str, Any],
        processing_class: PreTrainedTokenizerBase | ProcessorMixin | None,
        *,
        own_tokenizer: bool,
    ) -> "Origin":
        """Return the origin of a model that was just loaded with these arguments, its tokenizer with it or not."""
        kept = ("cache_dir", "local_files_only", "revision", "subfolder", "token")
        source = {argument: arguments[argument] for argument in kept if argument in arguments}
        from_there = own_tokenizer and "gguf_file" not in arguments
        return cls(name, _pinned(name, source), tokenizer_state(processing_class) if from_there else None)

    @classmethod
    def of(cls, model: PreTrainedModel) -> "Origin":
        """Return the origin of a model from memory: its folder, or the repository that is in the cache."""
        source = _pinned(model.name_or_path, {})
        return cls(model.name_or_path if source or os.path.isdir(model.name_or_path) else "", source)


def tokenizer_state(processing_class: PreTrainedTokenizerBase | ProcessorMixin | None) -> tuple[object, ...]:
    """Return what tells whether a tokenizer was changed since it was loaded."""
    if processing_class is None:
        return ()
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    templates = (getattr(one, "chat_template", None) for one in (processing_class, tokenizer))
    return len(tokenizer), repr(tokenizer.special_tokens_map), *map(repr, templates)


def is_companion(name: str) -> bool:
    """Tell whether a file of a model's folder or repository travels with its weights.

    >>> [is_companion(name) for name in ("LICENSE.txt", "tokenizer.model", "model.bin", "LICENSE.py", "../LICENSE")]
    [True, True, False, False, False]
    """
    return bool(_OF_TOKENIZER.fullmatch(name) or _OF_MODEL.fullmatch(name))


def copy_companions(
    origin: Origin, folder: Path, processing_class: PreTrainedTokenizerBase | ProcessorMixin | None
) -> None:
    """Copy the files that a folder with a saved model does not have yet; warn of what stays behind.
    Files of the tokenizer come along only if the saved one is the one that they belong to.
    """
    with_tokenizer = origin.tokenizer == tokenizer_state(processing_class)

    def is_wanted(name: str) -> bool:
        of_tokenizer = _OF_TOKENIZER.fullmatch(name) is not None
        if not is_companion(name) or os.path.lexists(folder / name) or (of_tokenizer and not with_tokenizer):
            return False
        # What the processor wrote takes the place of the older form.
        return name != "chat_template.json" or not (folder / "chat_template.jinja").exists()

    problems: list[str] = []
    try:
        for name, path in _files_of(origin, is_wanted, problems):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, folder / name)
    finally:
        if problems:
            warnings.warn(
                f"Not all files beside the weights of {origin.name} were saved with the pruned model: "
                f"{'; '.join(problems[:5])}.",
                stacklevel=3,
            )


def _files_of(origin: Origin, is_wanted: Any, problems: list[str]) -> Iterator[tuple[str, Path]]:
    folder = Path(origin.name, origin.source.get("subfolder") or "")
    if origin.name and os.path.isdir(folder):
        yield from _in_folder(folder, is_wanted, problems)
    elif _is_hub_name(origin.name):
        yield from _on_hub(origin, is_wanted, problems)
    elif origin.name:
        problems.append("the folder is no longer there")


def _in_folder(folder: Path, is_wanted: Any, problems: list[str]) -> Iterator[tuple[str, Path]]:
    for path in sorted((*folder.glob("*"), *folder.glob(f"{_FOLDER}/*"))):
        name = path.relative_to(folder).as_posix()
        if not is_wanted(name) or not os.path.isfile(path):
            continue
        if not _lies_within(path, folder):
            problems.append(f"{name} is a link that leads out of the folder")
        elif path.stat().st_size > _MOST_BYTES:
            problems.append(f"{name} is larger than {_MOST_BYTES // 2**20} MB")
        else:
            yield name, path


def _lies_within(path: Path, folder: Path) -> bool:
    """Tell whether a file lies in the folder, links followed, or in the Hub's cache that the folder is part of."""
    real, root = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    blobs = root.parents[1] / "blobs" if root.parent.name == "snapshots" else root
    return real.is_relative_to(root) or real.is_relative_to(blobs)


def _on_hub(origin: Origin, is_wanted: Any, problems: list[str]) -> Iterator[tuple[str, Path]]:
    """Yield files of a repository, downloaded if need be; those in the cache where the Hub cannot be asked."""
    source = dict(origin.source)
    subfolder = f"{source.pop('subfolder', None) or ''}/".lstrip("/")
    try:
        if source.get("local_files_only"):
            raise ValueError("local_files_only=True")
        api = HfApi(token=source.get("token"))
        info = api.model_info(origin.name, revision=source.get("revision"), files_metadata=True)
        found = [(file.rfilename, file.size) for file in info.siblings or ()]
        wanted = [
            (name.removeprefix(subfolder), size)
            for name, size in found
            if name.startswith(subfolder) and is_wanted(name.removeprefix(subfolder))
        ]
        for name, size in wanted[:_MOST_FILES]:
            if size is None or size > _MOST_BYTES:
                problems.append(f"{name} is larger than {_MOST_BYTES // 2**20} MB, or its size is not known")
            else:
                yield name, Path(hf_hub_download(origin.name, subfolder + name, **{**source, "revision": info.sha}))
    except (OSError, ValueError, httpx.HTTPError) as error:
        reason = without_secrets(" ".join(str(error).split())[:200], source.get("token"))
        problems.append(f"the Hub could not be asked, so only those in the cache were ({reason.rstrip('.')})")
        if (cached := _cached_config(origin.name, origin.source)) is not None:
            yield from _in_folder(cached.parent, is_wanted, problems)


def _cached_config(name: str, source: dict[str, Any]) -> Path | None:
    """Return the config of a repository in the cache of the Hub."""
    if os.path.isdir(name) or not _is_hub_name(name):
        return None
    file = f"{source.get('subfolder') or ''}/config.json".lstrip("/")
    cached = try_to_load_from_cache(name, file, source.get("cache_dir"), source.get("revision"))
    return Path(cached) if isinstance(cached, str) else None


def _pinned(name: str, source: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with the commit that was loaded, because a branch can move on."""
    file = _cached_config(name, source)
    parts = () if file is None else file.parts
    return (
        {**source, "revision": parts[len(parts) - parts[::-1].index("snapshots")]} if "snapshots" in parts else source
    )


def _is_hub_name(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True
