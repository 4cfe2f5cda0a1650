"""Texts to calibrate and to evaluate on: the published data sets and local files."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import CalibrationError

SEPARATOR = "\n\n"
# The shard whose first documents the paper evaluates on, as it is called on the Hub.
_C4_SHARD = "c4-validation.00000-of-00008.json.gz"


@dataclass(frozen=True)
class NamedDataset:
    """One of the data sets of the paper, and how its official code reads it.

    Attributes:
        load_arguments: Arguments of `datasets.load_dataset`, without the split.
        files: Data files by split, where the data set is too large to be loaded whole.
        separator: What stands between two documents.
        evaluation_split: Split on which perplexity is reported.
        evaluation_documents: Documents of that split that are used, the first ones; `None` uses all.
        evaluation_windows: Windows that are used, the first ones; `None` uses all.
    """

    load_arguments: tuple[str, ...]
    files: dict[str, str] | None
    separator: str
    evaluation_split: str
    evaluation_documents: int | None
    evaluation_windows: int | None


NAMED_DATASETS = {
    "wikitext2": NamedDataset(("Salesforce/wikitext", "wikitext-2-raw-v1"), None, SEPARATOR, "test", None, None),
    "c4": NamedDataset(
        ("allenai/c4",),
        {"train": "en/c4-train.00000-of-01024.json.gz", "validation": f"en/{_C4_SHARD}"},
        " ",
        "validation",
        1100,
        256,
    ),
}


def published_calibration_text(name: str, num_samples: int, seed: int) -> str:
    """The calibration text of the published procedure: shuffle the training split, join its first documents.

    Args:
        name: `"wikitext2"` or `"c4"`.
        num_samples: Number of documents.
        seed: Seed of the shuffle.

    Returns:
        The text.

    Raises:
        CalibrationError: If the data set cannot be loaded.

    Example:
        ```python
        text = published_calibration_text("wikitext2", num_samples=128, seed=0)
        ```
    """
    rows = _load(name, "train").shuffle(seed=seed)
    return NAMED_DATASETS[name].separator.join(rows[:num_samples]["text"])


def published_evaluation_text(name: str) -> str:
    """The text on which the paper reports perplexity.

    Args:
        name: `"wikitext2"` (the whole test split) or `"c4"` (the first 1100 documents of the validation split).

    Returns:
        The text.

    Raises:
        CalibrationError: If the data set cannot be loaded.

    Example:
        ```python
        text = published_evaluation_text("c4")
        ```
    """
    dataset = NAMED_DATASETS[name]
    rows = _load(name, dataset.evaluation_split)
    return dataset.separator.join(rows[: dataset.evaluation_documents]["text"])


def local_evaluation_file(name: str, data_dir: Path) -> Path:
    """The file that a data set of the paper is read from, where the Hub cannot be reached.

    Args:
        name: `"wikitext2"` or `"c4"`.
        data_dir: The data folder.

    Returns:
        `wikitext-2-raw/wiki.test.raw`; of C4 the shard that the paper uses, else the first sample in the folder `c4`.

    Raises:
        CalibrationError: If there is none.

    Example:
        ```python
        local_evaluation_file("wikitext2", Path("data"))
        ```
    """
    wanted = {"wikitext2": ["wikitext-2-raw/wiki.test.raw"], "c4": [f"c4/{_C4_SHARD}", "c4/*.jsonl"]}[name]
    for pattern in wanted:
        for file in sorted(data_dir.glob(pattern)):
            return file
    raise CalibrationError(
        f"The data set {name!r} has no file in {data_dir}: it is read from {' or '.join(wanted)} there."
    )


def local_evaluation_text(name: str, data_dir: Path) -> tuple[str, str]:
    """The text on which the paper reports perplexity, from local files.

    Args:
        name: `"wikitext2"` or `"c4"`.
        data_dir: The data folder; see `local_evaluation_file`.

    Returns:
        The text, made of the file as the published one is made of the rows on the Hub; and its source: the name
        where it is the published text, the path where it is another sample of the data set.

    Raises:
        CalibrationError: If there is no such file, or it cannot be read.

    Example:
        ```python
        text, source = local_evaluation_text("wikitext2", Path("data"))
        ```
    """
    file, dataset = local_evaluation_file(name, data_dir), NAMED_DATASETS[name]
    if name == "wikitext2":
        # A row on the Hub is a line with its break; of a blank line nothing is left.
        lines = file.read_text(encoding="utf-8").split("\n")[:-1]
        return dataset.separator.join(f"{line}\n" if line.strip() else "" for line in lines), name
    texts = read_text_file(file, "text", dataset.separator, dataset.evaluation_documents)
    return texts, name if file.name == _C4_SHARD else str(file)


def read_text_file(path: Path, text_column: str, separator: str = SEPARATOR, max_documents: int | None = None) -> str:
    """The text of a local file.

    Args:
        path: A `.jsonl` or `.parquet` file, whose documents are joined, or a plain text file, which is taken as it
            is. JSON lines may be compressed.
        text_column: The field or column that holds the text of a document.
        separator: What stands between two documents.
        max_documents: Use the first so many documents; `None` uses all.

    Returns:
        The text.

    Raises:
        CalibrationError: If the file is empty, cannot be read, or lacks the field.

    Example:
        ```python
        text = read_text_file(Path("mine.jsonl"), text_column="content")
        ```
    """
    if path.stat().st_size == 0:
        raise CalibrationError(f"{path} is empty; give a file with text.")
    builder = _builder_of(path)
    if builder is None:
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise CalibrationError(f"{path} is not UTF-8 text ({error}); convert it, or use .jsonl.") from error
    import datasets

    try:
        rows = datasets.load_dataset(builder, data_files=str(path), split="train", streaming=True)
        return separator.join(islice(column_of(rows, text_column, str(path)), max_documents))
    except (datasets.exceptions.DatasetGenerationError, ValueError, OSError) as error:
        if isinstance(error, CalibrationError):
            raise
        raise CalibrationError(f"{path} cannot be read as {builder} ({error}).") from error


def column_of(rows: Iterable[dict[str, Any]], column: str, place: str) -> Iterator[Any]:
    """One column of a data set, row by row.

    Args:
        rows: The rows.
        column: Name of the column.
        place: Where the rows come from, for the error message.

    Yields:
        The values.

    Raises:
        CalibrationError: If a row lacks the column.

    Example:
        >>> list(column_of([{"text": "a"}, {"text": "b"}], "text", "example"))
        ['a', 'b']
    """
    for number, row in enumerate(rows):
        if row.get(column) is None:
            raise CalibrationError(
                f"Row {number} of {place} has no field {column!r}, only {', '.join(map(repr, row))}; name the one "
                "with the text (text_column)."
            )
        yield row[column]


def _builder_of(path: Path) -> str | None:
    suffixes = path.suffixes[-2:]
    if path.suffix == ".parquet":
        return "parquet"
    if any(suffix in (".jsonl", ".json", ".ndjson") for suffix in suffixes):
        return "json"
    return None


def _load(name: str, split: str) -> Any:
    import datasets

    dataset = NAMED_DATASETS[name]
    files = None if dataset.files is None else {split: dataset.files[split]}
    try:
        return datasets.load_dataset(*dataset.load_arguments, data_files=files, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise CalibrationError(
            f"The data set {name!r} cannot be loaded from the Hub ({_first_line(error)}); pass a local .txt, .jsonl "
            "or .parquet file instead."
        ) from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no details'}"
