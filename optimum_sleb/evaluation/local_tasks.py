"""Tasks of lm-evaluation-harness over local files, for machines that cannot reach the Hub.

Only the data set is replaced, row for row; prompts, choices, gold answers and metrics come from the harness.
"""

import bz2
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CalibrationError

Row = dict[str, Any]


@dataclass(frozen=True)
class LocalTask:
    """Files of a task, and the function that reads them."""

    split: str  # of the data set on the Hub, which the rows replace
    # Alternative sets of files below the data folder; the first complete one is read.
    files: tuple[tuple[str, ...], ...]
    read: Callable[[list[Path]], Iterator[Row]]
    note: dict[str, str]  # name of the first file: how the data differ from those on the Hub


def local_files(task: str, data_dir: Path) -> list[Path]:
    """Return the files that a task is read from; CalibrationError if there are none."""
    if task not in LOCAL_TASKS:
        raise CalibrationError(
            f"The task {task!r} cannot be read from local files, only {', '.join(LOCAL_TASKS)}; leave data_dir "
            "(--data-dir) out to take it from the Hub."
        )
    ways = [[data_dir / name for name in names] for names in LOCAL_TASKS[task].files]
    complete = [files for files in ways if all(os.path.isfile(file) for file in files)]
    if not complete:
        names = ", or ".join(" and ".join(map(str, files)) for files in ways)
        raise CalibrationError(f"The task {task!r} has no data in {data_dir}: it is read from {names}.")
    return complete[0]


def local_rows(task: str, data_dir: Path) -> list[Row]:
    """Return the rows of a task in the form of its data set on the Hub."""
    files = local_files(task, data_dir)
    try:
        return list(LOCAL_TASKS[task].read(files))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise CalibrationError(
            f"{' and '.join(map(str, files))} cannot be read as the task {task!r} ({type(error).__name__}: {error}); "
            "get the files again."
        ) from error


def local_note(task: str, data_dir: Path) -> str:
    """Return how the local files differ from the data on the Hub; empty if they do not."""
    return LOCAL_TASKS[task].note.get(local_files(task, data_dir)[0].name, "")


def local_task(task: str, data_dir: Path) -> dict[str, Any]:
    """Return a harness group with only this task, fed from local files.

    Only inside a group can the config of a task that the harness knows be changed.
    """
    import datasets

    rows = local_rows(task, data_dir)
    split = LOCAL_TASKS[task].split
    # The harness loads every split that the config names, so the missing ones are set to None.
    splits = {f"{name}_split": name if name == split else None for name in ("training", "validation", "test")}
    changed = {
        "task": task,
        # The harness passes the config's entries on the Hub data set, which are not needed here.
        "custom_dataset": lambda **_: datasets.DatasetDict({split: datasets.Dataset.from_list(rows)}),
        **splits,
    }
    return {"group": "local files", "task": [changed]}


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.strip())


def _piqa(files: list[Path]) -> Iterator[Row]:
    labels = files[1].read_text(encoding="utf-8").split()
    for row, label in zip(_json_lines(files[0]), labels, strict=True):
        yield {"goal": row["goal"], "sol1": row["sol1"], "sol2": row["sol2"], "label": int(label)}


def _winogrande(files: list[Path]) -> Iterator[Row]:
    for row in _json_lines(files[0]):
        yield {name: row[name] for name in ("sentence", "option1", "option2", "answer")}


def _arc(files: list[Path]) -> Iterator[Row]:
    for row in _json_lines(files[0]):
        choices = row["question"]["choices"]
        yield {
            "id": row["id"],
            "question": row["question"]["stem"],
            "choices": {name: [choice[name] for choice in choices] for name in ("text", "label")},
            "answerKey": row["answerKey"],
        }


def _hellaswag(files: list[Path]) -> Iterator[Row]:
    if files[0].suffix == ".jsonl":
        for row in _json_lines(files[0]):
            kept = {name: row[name] for name in ("activity_label", "ctx_a", "ctx_b", "endings")}
            yield {**kept, "label": str(row["label"])}
        return
    content = files[0].read_bytes()
    text = bz2.decompress(content) if files[0].suffix == ".bz2" else content
    lines = text.decode("utf-8").splitlines()
    # Six lines for each example: activity and context, the number of the gold ending, four endings.
    for first in range(0, len(lines), 6):
        context, label, *endings = lines[first : first + 6]
        activity, _, beginning = context.partition(": ")
        if len(endings) != 4 or label not in ("0", "1", "2", "3"):
            raise ValueError(f"six lines make an example, but line {first + 2} is {label!r}")
        yield {"activity_label": activity, "ctx_a": beginning, "ctx_b": "", "endings": endings, "label": label}


def _lambada(files: list[Path]) -> Iterator[Row]:
    for row in _json_lines(files[0]):
        yield {"text": row["text"]}


_TEXT_FORM = "text form of the data, in which a second sentence is not capitalised"
# Files as the authors of the data publish them; HellaSwag also as plain text.
LOCAL_TASKS = {
    "piqa": LocalTask("validation", (("piqa/valid.jsonl", "piqa/valid-labels.lst"),), _piqa, {}),
    "winogrande": LocalTask("validation", (("winogrande/dev.jsonl",),), _winogrande, {}),
    "hellaswag": LocalTask(
        "validation",
        (
            ("hellaswag/hellaswag_val.jsonl",),
            ("hellaswag/hellaswag_val_full.txt",),
            ("hellaswag/hellaswag_val_full.txt.bz2",),
        ),
        _hellaswag,
        {"hellaswag_val_full.txt": _TEXT_FORM, "hellaswag_val_full.txt.bz2": _TEXT_FORM},
    ),
    "arc_easy": LocalTask("test", (("arc/ARC-Easy-Test.jsonl",),), _arc, {}),
    "arc_challenge": LocalTask("test", (("arc/ARC-Challenge-Test.jsonl",),), _arc, {}),
    "lambada_openai": LocalTask("test", (("lambada_openai/lambada_test.jsonl",),), _lambada, {}),
}
