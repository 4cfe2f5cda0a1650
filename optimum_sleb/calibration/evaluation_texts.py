"""Texts that perplexity is reported on, read from local files or the Hub."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ..errors import CalibrationError
from .places import Files, OnHub, Published, Saved, find
from .readers import rows_of, text_of
from .reading import Reading
from .texts import C4_SHARD, NAMED_DATASETS, SEPARATOR, iter_column, joined


def local_evaluation_file(name: str, data_dir: Path) -> Path:
    """Return the file in `data_dir` that is read instead of a data set on the Hub.
    Of C4 this is the file that the paper uses, else the first `.jsonl` sample in the folder `c4`.
    """
    patterns = {"wikitext2": ["wikitext-2-raw/wiki.test.raw"], "c4": [f"c4/{C4_SHARD}", "c4/*.jsonl"]}[name]
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
    return texts, name if file.name == C4_SHARD else str(file)


def read_text_file(path: Path, text_column: str, separator: str = SEPARATOR, max_documents: int | None = None) -> str:
    """Return the whole text of a file or folder."""
    place = find(str(path))
    if isinstance(place, Published):
        raise CalibrationError(f"{place.name!r} is not a file; name one.")
    return "".join(iter_text(place, text_column, Reading(is_evaluation=True), separator, max_documents))


def iter_text(
    place: Files | Saved | OnHub,
    text_column: str,
    reading: Reading,
    separator: str = SEPARATOR,
    max_documents: int | None = None,
) -> Iterator[str]:
    """Yield the pieces of a text, read as they are taken: the documents of rows with the separator between them, or
    plain text as it is."""
    if isinstance(place, Files) and not place.has_rows:
        yield from text_of(place, reading)
        return
    rows = islice(rows_of(place, reading), max_documents)
    yield from joined(iter_column(rows, text_column, place.name), separator)
