"""The progress of a search on disk: the journal, and a report of the steps so far."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from transformers import PreTrainedModel

from ..calibration.windows import TokenWindows
from ..config import SLEBConfig
from ..errors import ConfigError, JournalError, OutputFolderError
from ..models.fingerprint import model_fingerprint
from ..report.folder import lock_folder
from ..report.report import PruningReport
from ..version import versions
from .journal import Journal, check_journal


def check_progress(folder: str | Path | None, *, resume: bool) -> None:
    """Raise ConfigError or JournalError for a folder in which `Progress` could not be kept, whatever is measured."""
    if folder is None:
        if resume:
            raise ConfigError("resume=True goes on from a journal; say with progress_dir where it is.")
        return
    try:
        with lock_folder(folder, seconds=0) as directory:
            check_journal(folder, resume)
            if os.path.lexists(directory) and not directory.is_dir():
                raise OutputFolderError(f"{directory} is a file; name a folder.")
    except OutputFolderError as error:
        raise JournalError(f"The journal cannot be kept in {folder}: {error}") from error


class Progress:
    """The journal and the report of the steps so far, in a folder; `folder=None` keeps nothing.
    `JournalError` is raised if there is a journal without `resume`, none with it, or one of another run."""

    def __init__(
        self,
        folder: str | Path | None,
        model: PreTrainedModel,
        dense_numbers: Sequence[int],
        windows: TokenWindows,
        config: SLEBConfig,
        criterion_source: str | None = None,  # hash of the code of a criterion of one's own
        *,
        resume: bool,
    ) -> None:
        self._folder = folder
        self.journal: Journal | None = None
        if folder is not None:
            header = {**_header(model, dense_numbers, windows, config), "criterion_source": criterion_source}
            self.journal = Journal(folder, header, resume=resume)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.journal is not None:
            self.journal.close()

    def save(self, report: PruningReport) -> None:
        """Write the report of the steps so far, so that it is there if the run is stopped.
        If the folder already holds a model, its report is not overwritten.
        """
        if self._folder is None or any(Path(self._folder).glob("*.safetensors")):
            return
        try:
            report.save(self._folder)
        except OSError as error:
            raise JournalError(
                f"The report of the steps so far cannot be written to {self._folder} ({error}); make room and go on "
                "with resume=True (--resume)."
            ) from error


def _header(
    model: PreTrainedModel, dense_numbers: Sequence[int], windows: TokenWindows, config: SLEBConfig
) -> dict[str, Any]:
    """Return all that can change a measured loss, to the last bit; it must be equal when a run is resumed."""
    return {
        "model": {
            "architecture": type(model).__name__,
            "blocks": list(dense_numbers),
            **model_fingerprint(model),
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": model.device.type,
        },
        "data": windows.fingerprint,
        "recipe": config.to_dict(),
        "versions": versions(),
    }
