"""Upload of a saved folder to a repository on the Hub, in one commit."""

import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from fnmatch import fnmatch
from pathlib import Path

import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.utils import httpx

from ..card.base_card import BaseCardFields, hub_name
from ..card.card import address_card, name_origin
from ..card.format import one_line
from ..errors import OutputFolderError, PushError
from ..report.folder import CARD_FILE_NAME, JOURNAL_FILE_NAME, SLEB_FILES, WEIGHT_FILES, lock_folder
from ..report.report import PruningReport
from ..runtime.json import shown
from ..runtime.logs import get_logger
from ..runtime.secrets import without_secrets
from .answers import reason_of
from .companions import is_companion
from .model_files import check_model_folder
from .target import check_visibility

logger = get_logger(__name__)

# What transformers writes beside the weights, and what a repository needs. Logs, checkpoints and notes stay here.
_OTHER_FILES = (
    *("config.json", "*_config.json", "tokenizer*.json", "*.model", "*.tiktoken", "*.tekken", "tekken.json"),
    *("vocab*", "merges.txt", "added_tokens.json", "special_tokens_map.json", "chat_template.*"),
    *("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*", ".gitattributes"),
)


def push_folder(
    directory: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    commit_description: str | None = None,
    tags: Sequence[str] | None = None,
    fields: BaseCardFields | None = None,
) -> str:
    """Upload a saved folder in one commit and return its address; arguments as in `SLEBPruner.push_to_hub`.

    Weights and records that only the repository has are deleted: transformers would otherwise load the old weights.
    """
    check_tags(tags)
    report = check_model_folder(directory)
    message = commit_message or f"SLEB: {len(report.removed_blocks)} decoder blocks removed"
    card = _card(directory / CARD_FILE_NAME)
    if tags:
        card.data["tags"] = list(dict.fromkeys([*_tags_of(card), *tags]))
    name_origin(card, fields or BaseCardFields())
    _warn_of_missing_fields(card, report)
    try:
        with lock_folder(directory) if os.access(directory, os.W_OK) else nullcontext():
            return _upload(directory, repo_id, private, token, revision, create_pr, message, commit_description, card)
    except (PushError, OutputFolderError):
        raise
    except (OSError, ValueError, httpx.HTTPError) as error:
        reason = without_secrets(reason_of(error), token)
    # Raised outside the handler, so that the original error, which may quote a token, is not chained to it.
    raise PushError(f"{repo_id} was not pushed: {reason}. Nothing changed on this machine; the push can be repeated.")


def _upload(
    directory: Path,
    repo_id: str,
    private: bool | None,
    token: str | None,
    revision: str | None,
    create_pr: bool,
    message: str,
    description: str | None,
    card: ModelCard,
) -> str:
    api = HfApi(token=token)
    # create_repo puts the user's name in front where only the model's name was given.
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    check_visibility(repo_id, bool(api.model_info(repo_id).private), private)
    if revision is not None and not create_pr and not revision.startswith("refs/"):
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    head = api.model_info(repo_id, revision=revision).sha
    files = dict(_files(directory, card.content))
    address_card(card, repo_id)
    remote = api.list_repo_files(repo_id, revision=revision)
    stale = [name for name in remote if name not in files and _belongs_to_a_model(name)]
    commit = api.create_commit(
        repo_id,
        [
            *(CommitOperationAdd(name, path) for name, path in files.items() if name != CARD_FILE_NAME),
            CommitOperationAdd(CARD_FILE_NAME, card.content.encode()),
            *(CommitOperationDelete(name) for name in stale),
        ],
        commit_message=message,
        commit_description=description,
        revision=revision,
        create_pr=create_pr,
        # The commit fails if someone else pushed after the files were listed.
        parent_commit=head,
    )
    return commit.pr_url if create_pr and commit.pr_url else commit.commit_url


def check_tags(tags: Sequence[str] | None) -> None:
    """Refuse tags that are no list of short texts; one text would be taken for its letters."""
    if tags is None:
        return
    if isinstance(tags, str) or not all(isinstance(tag, str) and 0 < len(tag.strip()) <= 100 for tag in tags):
        raise PushError(f"tags must be a list of short texts, such as ['my-model']; got {shown(tags)}.")


def _tags_of(card: ModelCard) -> list[str]:
    tags = getattr(card.data, "tags", None)
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def _warn_of_missing_fields(card: ModelCard, report: PruningReport) -> None:
    """Warn where readers would not learn what they may do with a model, as its dense model was a local file."""
    if hub_name(report.base_model) is not None:
        return
    missing = [name for name in ("license", "base_model", "language") if not card.data.get(name)]
    if missing:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        logger.warning(
            f"The dense model is not on the Hub, so the card names no {' and no '.join(missing)}; give them when "
            f"the model is saved or pushed ({', '.join(f'{name}=' for name in missing)}; {options})."
        )


def _card(file: Path) -> ModelCard:
    try:
        return ModelCard.load(file)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise PushError(
            f"The card {file} cannot be read ({one_line(str(error))[:200]}); mend it, or save the pruned model again."
        ) from error


def _files(directory: Path, card: str) -> Iterator[tuple[str, Path]]:
    """Yield names and paths of what belongs to the model: by name, code that a config names, what the card shows."""
    has_code = any('"auto_map"' in file.read_text(errors="replace") for file in directory.glob("*config.json"))
    patterns = (*WEIGHT_FILES, *SLEB_FILES, *_OTHER_FILES, *(("*.py",) if has_code else ()))
    for path in sorted((*directory.glob("*"), *directory.glob("*/*"))):
        name = path.relative_to(directory).as_posix()
        listed = is_companion(name) or any("/" not in name and fnmatch(name, pattern) for pattern in patterns)
        if path.is_file() and name != JOURNAL_FILE_NAME and (listed or f"]({name})" in card):
            yield name, path


def _belongs_to_a_model(name: str) -> bool:
    """Return whether a file in the repository belongs to the earlier model and must be deleted with it."""
    return "/" not in name and any(fnmatch(name, pattern) for pattern in (*WEIGHT_FILES, *SLEB_FILES))
