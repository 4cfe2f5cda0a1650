"""How a report is written to a file and read again."""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from ..errors import ConfigError, OutputFolderError, ReportError
from ..runtime.files import replace_file
from ..runtime.hub import find_or_download
from ..runtime.json import parse_dataclass, read_json
from .checks import check_run
from .folder import REPORT_FILE_NAME, recover


def report_file(path: str | Path) -> Path:
    """Return the file of a report from its path or that of its folder; raise ReportError if there is none."""
    if not os.path.exists(path):
        recover(path)
    file = Path(path) / REPORT_FILE_NAME if os.path.isdir(path) else Path(path)
    if not os.path.isfile(file):
        raise ReportError(f"There is no report at {str(path)!r}; name a {REPORT_FILE_NAME} or the folder with it.")
    return file


@dataclass(frozen=True)
class StoredReport:
    """The part of `PruningReport` that turns it into plain values and JSON, and back."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values.

        Returns:
            A dictionary that `from_dict` accepts and JSON can hold.

        Example:
            ```python
            json.dumps(pruner.report.to_dict())
            ```
        """
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Build a report from plain values, and check every one of them.

        Args:
            values: The result of `to_dict`, also after it was written to JSON and read again.

        Returns:
            The report.

        Raises:
            ReportError: If a key is unknown or missing, or a value has the wrong type.

        Example:
            ```python
            report = PruningReport.from_dict(json.loads(text))
            ```
        """
        try:
            report = parse_dataclass(cls, values, "the report")
            for run in getattr(report, "runs", ()):
                check_run(run)
            return report
        except (ConfigError, ValueError, RecursionError) as error:
            raise ReportError(f"This is not a report of optimum_sleb: {error}") from error

    def save(self, directory: str | Path) -> Path:
        """Write the report into a folder, as `sleb_report.json`.

        Args:
            directory: The folder; it must exist.

        Returns:
            The path of the file.

        Example:
            ```python
            pruner.report.save("smollm2-sleb-20")
            ```
        """
        path = Path(directory) / REPORT_FILE_NAME
        replace_file(path, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a report from a file or a folder.

        Args:
            path: The file, or the folder that holds it.

        Returns:
            The report.

        Raises:
            ReportError: If there is none, or it is malformed.

        Example:
            ```python
            report = PruningReport.load("smollm2-sleb-20")
            ```
        """
        file = report_file(path)
        try:
            values = read_json(file)
        except ValueError as error:
            raise ReportError(f"{file} is not valid JSON ({error}); take it from the run's folder again.") from error
        try:
            return cls.from_dict(values)
        except ReportError as error:
            raise ReportError(f"{file} cannot be used; take it from the run's folder again. {error}") from error

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> Self:
        """Read the report of a pruned model, from its folder or from the Hub, without its weights.

        Args:
            name_or_path: The folder of the model, or its name on the Hub.
            revision: Branch, tag or commit on the Hub; `None` is the main branch.
            token: A token of the Hub; `None` uses the one of the login.
            cache_dir: Folder of the cache; `None` is that of `huggingface_hub`.
            force_download: Download the file again where it is in the cache.
            local_files_only: Ask nobody, and take what is in the cache.

        Returns:
            The report.

        Raises:
            ReportError: If there is none, or it is malformed.

        Example:
            ```python
            report = PruningReport.from_pretrained("me/smollm2-sleb-20")
            report.plot()
            ```
        """
        with suppress(OutputFolderError):  # what cannot be the name of a folder may be one on the Hub
            recover(name_or_path)
        return cls.load(
            find_or_download(
                name_or_path,
                REPORT_FILE_NAME,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
            )
        )
