"""Texts: those of the published data sets, and documents of any origin, checked and joined."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import CalibrationError

SEPARATOR = "\n\n"
# Name on the Hub of the file whose first documents the paper evaluates on.
C4_SHARD = "c4-validation.00000-of-00008.json.gz"


@dataclass(frozen=True)
class NamedDataset:
    """A data set of the paper, and how the paper's official code reads it."""

    load_arguments: tuple[str, ...]  # of `datasets.load_dataset`, without the split
    files: dict[str, str] | None  # data files by split, where the data set is too large to be loaded whole
    separator: str  # between two documents
    evaluation_split: str
    evaluation_documents: int | None  # so many documents from the start of the split; None: all
    evaluation_windows: int | None  # so many windows from the start of the text; None: all


NAMED_DATASETS = {
    "wikitext2": NamedDataset(("Salesforce/wikitext", "wikitext-2-raw-v1"), None, SEPARATOR, "test", None, None),
    "c4": NamedDataset(
        ("allenai/c4",),
        {"train": "en/c4-train.00000-of-01024.json.gz", "validation": f"en/{C4_SHARD}"},
        " ",
        "validation",
        1100,
        256,
    ),
}


def published_calibration_documents(name: str, num_samples: int, seed: int) -> list[str]:
    """Return the documents of the published calibration text: the first ones of the shuffled training split."""
    documents: list[str] = _load(name, "train").shuffle(seed=seed)[:num_samples]["text"]
    return documents


def published_evaluation_text(name: str) -> str:
    """Return the text on which the paper reports perplexity."""
    dataset = NAMED_DATASETS[name]
    rows = _load(name, dataset.evaluation_split)
    return dataset.separator.join(rows[: dataset.evaluation_documents]["text"])


def joined(documents: Iterable[str], separator: str = SEPARATOR) -> Iterator[str]:
    """Yield documents with a separator between them.

    >>> "".join(joined(["a", "b"]))
    'a\\n\\nb'
    """
    for number, document in enumerate(documents):
        if number:
            yield separator
        yield document


def iter_column(rows: Iterable[Any], column: str, source: str) -> Iterator[str]:
    """Yield one column of a data set, row by row; a row without text there raises `CalibrationError`.

    >>> list(iter_column([{"text": "a"}, {"text": "b"}], "text", "example"))
    ['a', 'b']
    """
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping) or column not in row:
            holds = ", ".join(map(repr, row)) if isinstance(row, Mapping) else f"a {type(row).__name__}"
            raise CalibrationError(
                f"Row {number} of {source} has no field {column!r}, only {holds}; name the one with the text "
                "(text_column)."
            )
        yield checked_document(row[column], f"Row {number} of {source} has in the field {column!r}", "text_column")


def checked_document(value: Any, where: str, option: str | None = None) -> str:
    """Return a value if it is text that can be encoded; `where` begins the error, `option` can name another field."""
    remedy = f"remove the row, or name the field with the text ({option})" if option else "leave it out"
    if not isinstance(value, str):
        kind = "no value (null)" if value is None else f"a value of type {type(value).__name__}"
        raise CalibrationError(f"{where} {kind}, where text is expected; {remedy}.")
    if "\0" in value:
        raise CalibrationError(f"{where} text with NUL characters, which are no text; {remedy}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise CalibrationError(f"{where} text that is not Unicode ({error.reason}); {remedy}.") from error
    return value


def rows_read(rows: Iterable[Any], source: str) -> Iterator[Any]:
    """Yield rows; whatever stops the reading is raised as a `CalibrationError` that names the row."""
    number = 0
    try:
        for row in rows:
            yield row
            number += 1
    except (CalibrationError, MemoryError):
        raise
    except Exception as error:
        raise CalibrationError(
            f"Row {number} of {source} cannot be read ({first_line(error)}); check the data, or make them again."
        ) from error


def _load(name: str, split: str) -> Any:
    import datasets

    dataset = NAMED_DATASETS[name]
    files = None if dataset.files is None else {split: dataset.files[split]}
    try:
        return datasets.load_dataset(*dataset.load_arguments, data_files=files, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise CalibrationError(
            f"The data set {name!r} cannot be loaded from the Hub ({first_line(error)}); pass a local .txt, .jsonl "
            "or .parquet file instead."
        ) from error


def first_line(error: Exception) -> str:
    """Return the class of an error and the first line of its message."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no details'}"
