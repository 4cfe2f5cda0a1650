"""Every source with every kind of columns, against the same rows tokenised by hand and cut: the table of the page."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest

from optimum_sleb import SLEBConfig
from optimum_sleb.calibration.loaded import LoadedWindows
from optimum_sleb.calibration.sources import load_calibration

from ..conftest import ROOT
from ..hub.local_hub import LocalHub
from .chatting import chat_tokenizer
from .rows_by_hand import COUNT, KINDS, LABELLED, LENGTH

Rows = list[dict[str, Any]]


def as_jsonl(rows: Rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def save(rows: Rows, file: Path, how: str, **options: Any) -> str:
    getattr(datasets.Dataset.from_list(rows), how)(file, **options)
    return str(file)


def write(content: bytes, file: Path) -> str:
    file.write_bytes(content)
    return str(file)


def packed(file: str) -> str:
    return write(gzip.compress(Path(file).read_bytes()), Path(f"{file}.gz"))


def as_arrow(rows: Rows, file: Path) -> str:
    table = datasets.Dataset.from_list(rows).data.table
    with pyarrow.ipc.new_stream(str(file), table.schema) as stream:
        stream.write_table(table)
    return str(file)


def as_pattern(rows: Rows, folder: Path) -> str:
    write(as_jsonl(rows[:3]), folder / "a.jsonl")
    write(as_jsonl(rows[3:]), folder / "b.jsonl")
    return str(folder / "*.jsonl")


def as_folder(rows: Rows, folder: Path) -> str:
    return str(Path(as_pattern(rows, folder)).parent)


def as_saved_splits(rows: Rows, folder: Path) -> str:
    one = datasets.Dataset.from_list(rows)
    datasets.DatasetDict({"train": one, "test": one.select([0])}).save_to_disk(folder / "saved")
    return str(folder / "saved")


def zstandard(content: bytes) -> bytes:
    return pyarrow.compress(content, codec="zstd", asbytes=True)


# Where rows come from: a function from rows and an empty folder to what `calibration` takes.
SOURCES: dict[str, Callable[[Rows, Path], Any]] = {
    "`.jsonl`": lambda rows, folder: write(as_jsonl(rows), folder / "rows.jsonl"),
    "`.jsonl.gz`": lambda rows, folder: write(gzip.compress(as_jsonl(rows)), folder / "rows.jsonl.gz"),
    "`.jsonl.zst`": lambda rows, folder: write(zstandard(as_jsonl(rows)), folder / "rows.jsonl.zst"),
    "`.json`": lambda rows, folder: write(json.dumps(rows).encode(), folder / "rows.json"),
    "`.csv`": lambda rows, folder: save(rows, folder / "rows.csv", "to_csv"),
    "`.csv.gz`": lambda rows, folder: packed(save(rows, folder / "rows.csv", "to_csv")),
    "`.tsv`": lambda rows, folder: save(rows, folder / "rows.tsv", "to_csv", sep="\t"),
    "`.parquet`": lambda rows, folder: save(rows, folder / "rows.parquet", "to_parquet"),
    "`.arrow`": lambda rows, folder: as_arrow(rows, folder / "rows.arrow"),
    "a pattern": as_pattern,
    "a folder": as_folder,
    "a folder of `save_to_disk`": lambda rows, folder: save(rows, folder / "saved", "save_to_disk"),
    "the same of a `DatasetDict`": as_saved_splits,
    "a `Dataset`": lambda rows, folder: datasets.Dataset.from_list(rows),
    "an `IterableDataset` after `.map`": lambda rows, folder: datasets.IterableDataset.from_generator(
        lambda: iter(rows)
    ).map(lambda row: row),
    "a list": lambda rows, folder: rows,
    "a function that yields": lambda rows, folder: lambda: iter(rows),
}
ON_HUB = "a data set of the Hub"
# What a cell of csv can hold.
FLAT = ("text", "prompt and completion")
CELLS = [
    (source, kind)
    for source in [*SOURCES, ON_HUB]
    for kind in KINDS
    if kind in FLAT or not source.startswith(("`.csv", "`.tsv"))
]


def assert_as_by_hand(data: Any, kind: str, **recipe: Any) -> None:
    def loaded(loss: str) -> LoadedWindows:
        config = SLEBConfig(sparsity=0.2, window_length=LENGTH, max_windows=COUNT, loss=loss, **recipe)
        return load_calibration(data, chat_tokenizer(), config)

    for loss in ("next_token", "labels") if kind in LABELLED else ("next_token",):
        windows = loaded(loss).windows
        found = [window.tolist() for window in windows.windows]
        expected = KINDS[kind][1](loss)
        assert found == [ids for ids, _ in expected]
        if loss == "labels":
            # The label of a position is the target of the position before it.
            assert [row.tolist() for row in windows.targets] == [[*labels[1:], -100] for _, labels in expected]


@pytest.mark.filterwarnings("ignore:Row .* has .* tokens, more than window_length")
@pytest.mark.parametrize(("source", "kind"), [cell for cell in CELLS if cell[0] != ON_HUB])
def test_a_cell(source: str, kind: str, tmp_path: Path) -> None:
    assert_as_by_hand(SOURCES[source](KINDS[kind][0], tmp_path), kind)


@pytest.mark.filterwarnings("ignore:Row .* has .* tokens, more than window_length")
@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_of_the_hub(kind: str, hub: LocalHub) -> None:
    hub.add_dataset("me/rows", {"train.jsonl": as_jsonl(KINDS[kind][0])})
    assert_as_by_hand("me/rows", kind, shuffle_buffer=0)


def table() -> str:
    """The cells, as the page shows them."""
    lines = [f"| | {' | '.join(KINDS)} |", f"|---|{':---:|' * len(KINDS)}"]
    for source in [*SOURCES, ON_HUB]:
        marks = ("✓" if (source, kind) in CELLS else "" for kind in KINDS)
        lines.append(f"| {source} | {' | '.join(marks)} |")
    return "\n".join(lines)


def test_the_page_shows_the_cells_that_are_tested() -> None:
    assert len(CELLS) >= 60
    assert table() in (ROOT / "docs" / "calibration.md").read_text(encoding="utf-8"), table()
