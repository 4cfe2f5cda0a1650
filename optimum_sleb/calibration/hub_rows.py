"""Rows of a data set of the Hub, read as a stream."""

from collections.abc import Mapping
from typing import Any

from ..errors import CalibrationError
from .reading import Reading
from .texts import first_line


def open_on_hub(name: str, reading: Reading) -> Any:
    """Return the split of a data set as an `IterableDataset`; nothing of it is run, and little of it is downloaded."""
    import datasets

    revision = {} if reading.dataset_revision is None else {"revision": reading.dataset_revision}
    try:
        splits = datasets.load_dataset(name, reading.dataset_config, streaming=True, **revision)
    except MemoryError:
        raise
    except Exception as error:
        raise _explained(error, name, reading, revision) from error
    return split_of(splits, name, reading)


def split_of(splits: Mapping[str, Any], name: str, reading: Reading) -> Any:
    """Return one of the splits of a data set: `train` (of an evaluation, `test`), unless another one is named."""
    wanted = reading.dataset_split or ("test" if reading.is_evaluation else "train")
    if wanted not in splits:
        raise CalibrationError(
            f"{name} has no split {wanted!r}, only {', '.join(map(repr, splits))}; name one of them (dataset_split)."
        )
    return splits[wanted]


def _explained(error: Exception, name: str, reading: Reading, revision: dict[str, str]) -> CalibrationError:
    """Return the error that says what to do about one of `load_dataset`."""
    from datasets import get_dataset_config_names
    from datasets.exceptions import DatasetNotFoundError

    told = first_line(error)
    if isinstance(error, DatasetNotFoundError):
        remedy = "check the name, or log in if it is private (hf auth login)"
        if "gated" in told:
            remedy = "ask for access on its page, and log in (hf auth login)"
        elif told.startswith("DatasetNotFoundError: Revision "):
            remedy = "name another one (dataset_revision)"
        return CalibrationError(f"The data set {name!r} cannot be read ({told}); {remedy}.")
    if isinstance(error, ConnectionError):
        return CalibrationError(
            f"The Hub cannot be reached for the data set {name!r}, and there is no such file ({told}); check the "
            "name and the connection, or pass a local file."
        )
    if isinstance(error, ValueError) and "onfig" in told:
        try:
            known = get_dataset_config_names(name, **revision)
        except Exception:  # the first error says more
            known = []
        if known and reading.dataset_config not in known:
            given = f"no config {reading.dataset_config!r}" if reading.dataset_config else "several configs"
            return CalibrationError(
                f"{name} has {given}{', only' if reading.dataset_config else ':'} {', '.join(map(repr, known[:50]))}; "
                "name one of them (dataset_config)."
            )
    return CalibrationError(
        f"The data set {name!r} cannot be loaded from the Hub ({told}); check its name and revision "
        "(dataset_revision), or pass a local file."
    )
