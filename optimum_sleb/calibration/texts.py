"""Calibration and evaluation texts: the published data sets and local files."""

import glob
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import CalibrationError

SEPARATOR = "\n\n"
# Name on the Hub of the file whose first documents the paper evaluates on.
_C4_SHARD = "c4-validation.00000-of-00008.json.gz"
_CHARACTERS_AT_A_TIME = 2**16
_ROWS_AT_A_TIME = 100


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
        {"train": "en/c4-train.00000-of-01024.json.gz", "validation": f"en/{_C4_SHARD}"},
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


def local_evaluation_file(name: str, data_dir: Path) -> Path:
    """Return the file in `data_dir` that is read instead of a data set on the Hub.
    Of C4 this is the file that the paper uses, else the first `.jsonl` sample in the folder `c4`.
    """
    patterns = {"wikitext2": ["wikitext-2-raw/wiki.test.raw"], "c4": [f"c4/{_C4_SHARD}", "c4/*.jsonl"]}[name]
    for pattern in patterns:
        for file in sorted(data_dir.glob(pattern)):
            return file
    raise CalibrationError(
        f"The data set {name!r} has no file in {data_dir}: it is read from {' or '.join(patterns)} there."
    )


def local_evaluation_text(name: str, data_dir: Path) -> tuple[str, str]:
    """Return the evaluation text of a local file, and its source.
    The source is the name of the data set if the text is the published one, else the path of the sample.
    """
    file, dataset = local_evaluation_file(name, data_dir), NAMED_DATASETS[name]
    if name == "wikitext2":
        # A row on the Hub is a line with its line break; a blank line is an empty row.
        lines = file.read_text(encoding="utf-8").split("\n")[:-1]
        return dataset.separator.join(f"{line}\n" if line.strip() else "" for line in lines), name
    texts = read_text_file(file, "text", dataset.separator, dataset.evaluation_documents)
    return texts, name if file.name == _C4_SHARD else str(file)


def read_text_file(path: Path, text_column: str, separator: str = SEPARATOR, max_documents: int | None = None) -> str:
    """Return the whole text of `iter_text_file`."""
    return "".join(iter_text_file(path, text_column, separator, max_documents))


def iter_text_file(
    path: Path, text_column: str, separator: str = SEPARATOR, max_documents: int | None = None
) -> Iterator[str]:
    """Yield the pieces of a text, read as they are taken: the documents of a `.jsonl` (even compressed) or `.parquet`
    file with the separator between them, or any other file as it is."""
    try:
        if path.stat().st_size == 0:
            raise CalibrationError(f"{path} is empty; give a file with text.")
        builder = _builder_of(path)
        if builder is None:
            with open(path, encoding="utf-8") as file:
                while piece := file.read(_CHARACTERS_AT_A_TIME):
                    yield piece
            return
    except UnicodeDecodeError as error:
        raise CalibrationError(f"{path} is not UTF-8 text ({error}); convert it, or use .jsonl.") from error
    except OSError as error:
        raise CalibrationError(f"{path} cannot be read ({first_line(error)}); check the file.") from error
    rows = islice(_rows_of_file(path, builder), max_documents)
    yield from joined(iter_column(rows, text_column, str(path)), separator)


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


def rows_of_file(path: Path) -> Iterator[Any] | None:
    """Return the rows of a `.jsonl` or `.parquet` file, read as they are taken; `None` for other files."""
    builder = _builder_of(path)
    if builder is None:
        return None
    if path.stat().st_size == 0:
        raise CalibrationError(f"{path} is empty; give a file with text.")
    return _rows_of_file(path, builder)


def _rows_of_file(path: Path, builder: str) -> Iterator[Any]:
    import datasets

    # Small batches, or a whole row group would be held at once.
    options = {"batch_size": _ROWS_AT_A_TIME} if builder == "parquet" else {}
    number = 0
    try:
        files = glob.escape(str(path))
        rows = datasets.load_dataset(builder, data_files=files, split="train", streaming=True, **options)
        for row in rows:
            yield row
            number += 1
    except MemoryError:
        raise
    except Exception as error:  # what zipfile, gzip, lzma, pyarrow and pandas raise has no common class
        raise CalibrationError(
            f"{path} cannot be read as {builder} from row {number} on ({first_line(error)}); get it again."
        ) from error


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
            f"The data set {name!r} cannot be loaded from the Hub ({first_line(error)}); pass a local .txt, .jsonl "
            "or .parquet file instead."
        ) from error


def first_line(error: Exception) -> str:
    """Return the class of an error and the first line of its message."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no details'}"
