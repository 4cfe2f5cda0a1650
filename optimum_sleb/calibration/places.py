"""Where the data that a name stands for lie: published, in local files, saved by `datasets`, or on the Hub."""

import glob
import os
from dataclasses import dataclass

from ..errors import CalibrationError
from .formats import KNOWN, Format, format_of, suffix_of
from .texts import NAMED_DATASETS

_NOT_DATA = ("readme", "license", "notice")  # beside data files in a folder


@dataclass(frozen=True)
class Published:
    """A data set of the paper, read by its protocol."""

    name: str


@dataclass(frozen=True)
class Files:
    """Local files of one format."""

    name: str
    files: tuple[str, ...]
    format: Format

    @property
    def has_rows(self) -> bool:
        """Tell whether the files hold rows; plain text has none."""
        return self.format.builder is not None


@dataclass(frozen=True)
class Saved:
    """A folder that `save_to_disk` of the library `datasets` wrote."""

    name: str
    folder: str


@dataclass(frozen=True)
class OnHub:
    """A data set of the Hub."""

    name: str


Place = Published | Files | Saved | OnHub


def find(name: str) -> Place:
    """Return what a name stands for; only names and folders are looked at, so that a slip is found at once.
    A local folder has a slash behind its name in the report, where no data set of the Hub has one.
    """
    if name in NAMED_DATASETS:
        return Published(name)
    if exists(name):
        if os.path.isdir(name):
            folder = name.rstrip("/") + "/"
            if any(os.path.isfile(os.path.join(name, file)) for file in ("state.json", "dataset_dict.json")):
                return Saved(folder, name)
            return _files(folder, _files_in(folder))
        return _files(name, [name])
    if is_pattern(name):
        matches = [path for path in sorted(glob.glob(name, recursive=True)) if not os.path.isdir(path)]
        if matches:
            return _files(name, matches)
        raise CalibrationError(f"No file matches {name!r}; change the pattern, or name a file or folder.")
    if is_hub_name(name):
        return OnHub(name)
    if suffix_of(name):
        known = ", ".join(NAMED_DATASETS)
        raise CalibrationError(f"{name!r} is neither a known data set ({known}) nor a file; name one that exists.")
    raise CalibrationError(
        f"{name[:300]!r} is neither a known data set ({', '.join(NAMED_DATASETS)}) nor a file, a folder, or a data "
        f"set of the Hub (org/name); pass the path of a file ({KNOWN}), or several joined by +."
    )


def files_of(place: Place) -> list[str]:
    """Return the local files of a place, of which there are none for data of the Hub."""
    if isinstance(place, Saved):
        return sorted(
            path for path in glob.glob(f"{glob.escape(place.folder)}/**", recursive=True) if os.path.isfile(path)
        )
    return [*place.files] if isinstance(place, Files) else []


def exists(name: str) -> bool:
    """Tell whether a path exists; a name that cannot be a path does not."""
    try:
        return os.path.exists(name)
    except (OSError, ValueError):
        return False


def is_pattern(name: str) -> bool:
    """Tell whether a name is a pattern of paths, such as `data/*.jsonl`."""
    return glob.has_magic(name) and "\0" not in name


def is_hub_name(name: str) -> bool:
    """Tell whether a name can be one of the Hub's; a data file that is not there is no data set of the Hub.

    >>> is_hub_name("allenai/c4"), is_hub_name("data/chat.jsonl"), is_hub_name("data/")
    (True, False, False)
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if "/" not in name or suffix_of(name):
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _files_in(folder: str) -> list[str]:
    """Return the data files directly in a folder."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise CalibrationError(f"{folder!r} cannot be read ({error.strerror}); check the folder.") from error
    left_out = [name for name in names if name.startswith((".", "_")) or name.lower().startswith(_NOT_DATA)]
    paths = [os.path.join(folder, name) for name in names if name not in left_out]
    files = [path for path in paths if not os.path.isdir(path)]
    if not files:
        raise CalibrationError(
            f"The folder {folder!r} holds no data files; name one that does, or a pattern such as "
            f"{folder + '**/*.parquet'!r}."
        )
    return files


def _files(name: str, files: list[str]) -> Files:
    for file in files:
        if not os.path.isfile(file):  # a pipe would be waited for, a device may not end
            raise CalibrationError(f"{file!r} is not an ordinary file; copy what it gives into one.")
    data_format = format_of(files, name)
    for file in files:
        if data_format.builder is not None and "::" in os.path.abspath(file):
            raise CalibrationError(f"The path {file!r} holds '::', which joins addresses for datasets; rename it.")
        if os.path.getsize(file) == 0:
            raise CalibrationError(f"{file} is empty; give a file with text.")
    return Files(name, tuple(files), data_format)
