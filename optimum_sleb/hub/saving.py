"""Saving and pushing a pruned model: the part of `SLEBPruner` that writes files."""

from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin
from transformers.utils import logging

from ..card.base_card import BaseCardFields, given_fields
from ..config import SLEBConfig
from ..errors import ConfigError, ReportError
from ..models.provenance import set_model_name
from ..report.folder import real_folder
from ..report.report import PruningReport
from ..runtime.turns import one_at_a_time
from .companions import Origin
from .folder import write_folder
from .model_files import write_sleb_files
from .push import check_tags, push_folder
from .saved_model import check_unchanged_since_save, save_model
from .target import check_target

logger = logging.get_logger(__name__)


class Saving:
    """The part of `SLEBPruner` that writes the pruned model to a folder and to the Hub."""

    model: PreTrainedModel
    _processing_class: PreTrainedTokenizerBase | ProcessorMixin | None
    _report: PruningReport | None
    _recipe: SLEBConfig | None
    _origin: Origin
    _folder: Path | None  # folder that holds the model as it is now; None if not saved since

    @property
    def report(self) -> PruningReport:
        """The report of the last run.

        Raises:
            ReportError: If nothing has been pruned yet.
        """
        if self._report is None:
            raise ReportError("Nothing has been pruned yet, so there is no report; call prune() or remove() first.")
        return self._report

    @one_at_a_time
    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        overwrite: bool = False,
        max_shard_size: str = "50GB",
        license: str | None = None,
        base_model: str | None = None,
        language: str | Sequence[str] | None = None,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        **kwargs: Any,
    ) -> Path:
        """Write the pruned model as an ordinary folder that loads with plain transformers.

        The folder holds weights, config, generation config, tokenizer, the recipe (`sleb_config.json`), the report
        (`sleb_report.json`), the plot of its losses (`sleb_loss.png`) and a model card (`README.md`). Other files of
        the dense model that runtimes or its licence need are copied: `tokenizer.model`, chat templates, processor
        settings, `LICENSE`, `NOTICE`, ... It is written to a temporary sibling, read back, compared with the model in
        memory, and only then renamed.

        Args:
            save_directory: The folder to write.
            overwrite: Replace a model that is there already.
            max_shard_size: Largest size of one weight file, such as `"5GB"`.
            license: The licence for the card, such as `"apache-2.0"`; `None` takes it from the dense model's card.
            base_model: Name of the dense model on the Hub, for the card of one that was a local file.
            language: Language of the model for the card, or several: `"en"`, `["en", "de"]`.
            push_to_hub: Upload the folder as well. The repository is looked at before anything is written.
            repo_id: The repository; `None` is one of the folder's name.
            **kwargs: With `push_to_hub`, the other arguments of `SLEBPruner.push_to_hub`.

        Returns:
            The path of the folder.

        Raises:
            ReportError: If nothing has been pruned yet.
            OutputFolderError: If the folder holds a model already, or cannot be written.
            VerificationError: If the saved folder does not give the model's logits; then nothing is written.
            ConfigError: If there are arguments for a push, but `push_to_hub` is not set, or if the Hub does not know
                such a licence, name or language.
            PushError: If the push fails; the folder is complete by then, and `push_to_hub` can be called again.

        Example:
            ```python
            pruner.save_pretrained("smollm2-sleb-20", push_to_hub=True, repo_id="me/smollm2-sleb-20")
            ```
        """
        directory = Path(save_directory)
        name = directory.name.strip(".") or real_folder(directory).name
        self.report  # noqa: B018 - refuses before the Hub is asked
        fields = given_fields(license, base_model, language)
        given = [*([] if repo_id is None else ["repo_id"]), *kwargs]
        _check_push_arguments(given, push_to_hub)
        if push_to_hub:
            asked = {key: kwargs[key] for key in ("private", "token", "create_pr") if key in kwargs}
            check_target(repo_id or name, **asked)
            check_tags(kwargs.get("tags"))
        write_folder(directory, lambda folder: self._write(folder, name, fields, max_shard_size), overwrite)
        set_model_name(self.model, str(directory))
        self._folder = directory
        if push_to_hub:
            logger.info(f"{directory} was pushed to {self.push_to_hub(repo_id or name, **kwargs)}.")
        return directory

    @one_at_a_time
    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        commit_message: str | None = None,
        commit_description: str | None = None,
        tags: Sequence[str] | None = None,
        license: str | None = None,
        base_model: str | None = None,
        language: str | Sequence[str] | None = None,
    ) -> str:
        """Upload the folder that was saved last, in one commit; if none was saved, upload a temporary one.

        The uploaded card tells readers to load `repo_id`. Weights and records of an earlier push that the folder does
        not have are deleted in the same commit: plain transformers would otherwise load the old weights.

        Args:
            repo_id: The repository, such as `"me/smollm2-sleb-20"`; it is created if it does not exist.
            private: Whether a new repository is private; `None` uses the default of the account. If the repository
                exists, its visibility must agree.
            token: A token of the Hub; `None` uses the one of the login.
            revision: The branch to push to, created if it does not exist; `None` is the main branch.
            create_pr: Open a pull request instead of pushing to the branch.
            commit_message: The message of the commit; `None` states how many blocks were removed.
            commit_description: More about the commit, below its message.
            tags: Tags for the card on the Hub, beside `sleb`, `pruned` and `depth-pruning`.
            license: The licence for the card on the Hub; `None` leaves what the folder's card says.
            base_model: Name of the dense model on the Hub, for the card of one that was a local file.
            language: Language of the model for the card, or several: `"en"`, `["en", "de"]`.

        Returns:
            The address of the commit, or of the pull request.

        Raises:
            ReportError: If nothing has been pruned yet.
            ConfigError: If the Hub does not know such a licence, name or language.
            OutputFolderError: If there is no room for the temporary folder.
            PushError: If the Hub refuses the upload, or the model was changed since it was saved. The folder is
                unchanged, and the push can be tried again.

        Example:
            ```python
            pruner.push_to_hub("me/smollm2-sleb-20", private=True, tags=["my-experiment"])
            ```
        """
        fields = given_fields(license, base_model, language)
        with TemporaryDirectory() as temporary:
            folder = self._folder or Path(temporary, "model")
            if self._folder is None:
                write_folder(folder, lambda fresh: self._write(fresh, repo_id, fields), overwrite=False)
            else:
                check_unchanged_since_save(folder, self.model)
            address = push_folder(
                folder,
                repo_id,
                private=private,
                token=token,
                revision=revision,
                create_pr=create_pr,
                commit_message=commit_message,
                commit_description=commit_description,
                tags=tags,
                fields=fields,
            )
        if revision is None and not create_pr:
            set_model_name(self.model, repo_id)
        return address

    def _write(self, folder: Path, load_from: str, fields: BaseCardFields, max_shard_size: str = "50GB") -> None:
        report = self.report
        save_model(folder, self.model, self._processing_class, self._origin, max_shard_size)
        parent = self._origin.name if report.previous is not None else None
        self._report = write_sleb_files(folder, report, self._recipe, load_from, fields, parent)


def _check_push_arguments(given: Sequence[str], push_to_hub: bool) -> None:
    """Refuse arguments of a push that nobody asked for, and unknown ones."""
    known = [name for name in signature(Saving.push_to_hub).parameters if name not in ("self",)]
    for name in given:
        if name not in known:
            raise ConfigError(f"There is no argument {name[:60]!r}; known ones of a push: {', '.join(known)}.")
    if given and not push_to_hub:
        raise ConfigError(f"{given[0]} belongs to a push; set push_to_hub=True, or leave it out.")
