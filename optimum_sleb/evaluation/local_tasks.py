"""Tasks of lm-evaluation-harness over local files, for machines that cannot reach the Hub.

Only the data set of a task is put in the place of the one on the Hub, row for row in its form; prompts, choices, gold
answers and metrics are made by the harness's own task.
"""

import bz2
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CalibrationError

Row = dict[str, Any]


@dataclass(frozen=True)
class LocalTask:
    """Where the files of a task lie, and how they are read.

    Attributes:
        split: Split of the data set on the Hub that the rows are.
        files: Ways in which the files may lie below the data folder; the first that is there is taken.
        read: Makes rows in the Hub's form of one of these ways.
        note: What is not as on the Hub, by the first file's name.
    """

    split: str
    files: tuple[tuple[str, ...], ...]
    read: Callable[[list[Path]], Iterator[Row]]
    note: dict[str, str]


def local_files(task: str, data_dir: Path) -> list[Path]:
    """The files that a task is read from.

    Args:
        task: Name of the task.
        data_dir: The data folder.

    Returns:
        The files.

    Raises:
        CalibrationError: If the task cannot be read from files, or they are not there.

    Example:
        ```python
        local_files("piqa", Path("data"))  # [data/piqa/valid.jsonl, data/piqa/valid-labels.lst]
        ```
    """
    if task not in LOCAL_TASKS:
        raise CalibrationError(
            f"The task {task!r} cannot be read from local files, only {', '.join(LOCAL_TASKS)}; leave data_dir "
            "(--data-dir) out to take it from the Hub."
        )
    ways = [[data_dir / name for name in names] for names in LOCAL_TASKS[task].files]
    there = [files for files in ways if all(file.is_file() for file in files)]
    if not there:
        wanted = ", or ".join(" and ".join(map(str, files)) for files in ways)
        raise CalibrationError(f"The task {task!r} has no data in {data_dir}: it is read from {wanted}.")
    return there[0]


def local_rows(task: str, data_dir: Path) -> list[Row]:
    """The rows of a task, in the form of its data set on the Hub.

    Args:
        task: Name of the task.
        data_dir: The data folder.

    Returns:
        The rows, in order.

    Raises:
        CalibrationError: If there are no such files, or they are malformed.

    Example:
        ```python
        local_rows("piqa", Path("data"))[0]["goal"]
        ```
    """
    files = local_files(task, data_dir)
    try:
        return list(LOCAL_TASKS[task].read(files))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise CalibrationError(
            f"{' and '.join(map(str, files))} cannot be read as the task {task!r} ({type(error).__name__}: {error}); "
            "get the files again."
        ) from error


def local_note(task: str, data_dir: Path) -> str:
    """What is not as on the Hub, where a task is read from local files.

    Args:
        task: Name of the task.
        data_dir: The data folder.

    Returns:
        A few words; empty where all is alike.

    Raises:
        CalibrationError: If there are no such files.

    Example:
        ```python
        local_note("hellaswag", Path("data"))  # "text form, second sentence not capitalised"
        ```
    """
    return LOCAL_TASKS[task].note.get(local_files(task, data_dir)[0].name, "")


def local_task(task: str, data_dir: Path) -> dict[str, Any]:
    """A task of the harness whose data are local files.

    Args:
        task: Name of the task.
        data_dir: The data folder.

    Returns:
        A group of this one task, as `simple_evaluate` and `TaskManager.load` take it: only in a group can the config
        of a known task be changed.

    Raises:
        CalibrationError: If there are no such files, or they are malformed.

    Example:
        ```python
        simple_evaluate(lm, tasks=[local_task("piqa", Path("data"))])
        ```
    """
    import datasets

    rows = local_rows(task, data_dir)
    split = LOCAL_TASKS[task].split
    # The harness asks for every split that the config names.
    splits = {f"{name}_split": name if name == split else None for name in ("training", "validation", "test")}
    changed = {
        "task": task,
        # Called with what the config says of the data set on the Hub.
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
    # Six lines for each example: what it is about and its beginning, the gold answer, four endings.
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
# The files as the authors of the data publish them; of HellaSwag also a form in plain text.
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
