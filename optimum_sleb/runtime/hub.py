"""Reading of one small file of a folder or of a repository on the Hub."""

import os
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx

from ..errors import ConfigError, ReportError
from .json import shown
from .secrets import without_secrets


def check_token(token: object) -> None:
    """Refuse a token that would fail only when it is sent, in an error whose message and log show it."""
    if isinstance(token, str) and not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError("The token holds a character that cannot be sent (a line break, say); pass it without.")


def find_or_download(name_or_path: str | Path, file_name: str, **source: Any) -> Path:
    """Return the path of a file in a folder, or of one on the Hub, which is downloaded to the cache.
    Raise `ReportError` if there is none. `source` holds arguments of `huggingface_hub.hf_hub_download`.
    """
    name = str(name_or_path)
    if os.path.lexists(name):
        file = Path(name, source.get("subfolder") or "", file_name)
        if not os.path.isfile(file):
            raise ReportError(f"{name!r} holds no {file_name}; name a folder that does, or a repository on the Hub.")
        return file
    check_token(source.get("token"))
    try:
        return Path(hf_hub_download(name, file_name, **source))
    except (OSError, ValueError, httpx.HTTPError) as error:
        reason = _reason(error, file_name, source)
    # Raised outside the handler, so that the original error, which may quote a token, is not chained to it.
    raise ReportError(without_secrets(f"There is no {file_name} at {shown(name)}: {reason}.", source.get("token")))


def _reason(error: Exception, file_name: str, source: dict[str, Any]) -> str:
    # The subclasses come first: what is not in the cache is an EntryNotFoundError too, and a gated one not found.
    if isinstance(error, HFValidationError):
        return "it is neither a folder nor a name on the Hub; name one of them"
    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        return "it is no folder, it is not in the cache, and the Hub cannot be asked; go online, or name a folder"
    if isinstance(error, GatedRepoError):
        return "its owner must grant access first; ask on its page, and log in with `hf auth login` (or pass token=)"
    if isinstance(error, RepositoryNotFoundError):
        return "it is no folder, and no repository that you can see; check the name, or log in with `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return f"the repository has no revision {shown(source.get('revision'))}; name a branch, tag or commit"
    if isinstance(error, EntryNotFoundError):
        return f"the repository holds no {file_name}; name one that optimum_sleb wrote"
    return f"{' '.join(str(error).split()).rstrip('.')[:300]}; try again, or name a folder"
