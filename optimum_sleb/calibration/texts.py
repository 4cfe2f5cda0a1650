"""Calibration and evaluation texts: the published data sets and local files."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import CalibrationError

SEPARATOR = "\n\n"
# Name on the Hub of the file whose first documents the paper evaluates on.
_C4_SHARD = "c4-validation.00000-of-00008.json.gz"


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


def published_calibration_text(name: str, num_samples: int, seed: int) -> str:
    """Return the published calibration text: the first documents of the shuffled training split."""
    rows = _load(name, "train").shuffle(seed=seed)
    return NAMED_DATASETS[name].separator.join(rows[:num_samples]["text"])


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
    """Return the joined documents of a `.jsonl` (even compressed) or `.parquet` file, or any other file as it is."""
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
        return separator.join(islice(iter_column(rows, text_column, str(path)), max_documents))
    except (datasets.exceptions.DatasetGenerationError, ValueError, OSError) as error:
        if isinstance(error, CalibrationError):
            raise
        raise CalibrationError(f"{path} cannot be read as {builder} ({error}).") from error


def iter_column(rows: Iterable[dict[str, Any]], column: str, source: str) -> Iterator[Any]:
    """Yield one column of a data set, row by row; a row that lacks it raises `CalibrationError`.

    >>> list(iter_column([{"text": "a"}, {"text": "b"}], "text", "example"))
    ['a', 'b']
    """
    for number, row in enumerate(rows):
        if row.get(column) is None:
            raise CalibrationError(
                f"Row {number} of {source} has no field {column!r}, only {', '.join(map(repr, row))}; name the one "
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
