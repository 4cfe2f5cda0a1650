"""Tasks from local files against the harness's own, over the same data in the form of the Hub."""

import bz2
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from optimum_sleb import CalibrationError
from optimum_sleb.evaluation.local_tasks import LOCAL_TASKS, local_note, local_rows, local_task

datasets = pytest.importorskip("datasets")
tasks = pytest.importorskip("lm_eval.tasks")

from .small_data import few_tasks, write_small_data  # noqa: E402


@pytest.fixture(scope="module")
def manager():
    return few_tasks()


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def as_on_the_hub(path: str, name: str | None, data: Path) -> datasets.DatasetDict:
    """The files in the form of the data set that the harness's task asks the Hub for, written down a second time."""
    if path == "baber/piqa":
        labels = (data / "piqa" / "valid-labels.lst").read_text().splitlines()
        rows = [
            row | {"label": int(label)} for row, label in zip(lines(data / "piqa/valid.jsonl"), labels, strict=True)
        ]
        split = "validation"
    elif path == "allenai/winogrande":
        rows, split = lines(data / "winogrande/dev.jsonl"), "validation"
    elif path == "allenai/ai2_arc":
        rows, split = [], "test"
        for row in lines(data / f"arc/{name}-Test.jsonl"):
            text = [choice["text"] for choice in row["question"]["choices"]]
            label = [choice["label"] for choice in row["question"]["choices"]]
            choices = {"text": text, "label": label}
            rows.append({"question": row["question"]["stem"], "choices": choices, "answerKey": row["answerKey"]})
    elif path == "Rowan/hellaswag":
        text = bz2.decompress((data / "hellaswag/hellaswag_val_full.txt.bz2").read_bytes()).decode().split("\n")
        rows, split = [], "validation"
        for start in range(0, len(text) - 1, 6):
            activity, context = text[start].split(": ", 1)
            beginning = {"activity_label": activity, "ctx_a": context, "ctx_b": ""}
            rows.append(beginning | {"label": text[start + 1], "endings": text[start + 2 : start + 6]})
    else:
        rows, split = lines(data / "lambada_openai/lambada_test.jsonl"), "test"
    whole = datasets.Dataset.from_list(rows)
    return datasets.DatasetDict({"train": whole.select([0]), "validation": whole.select([0])} | {split: whole})


def what_is_asked(task) -> Iterator[tuple]:
    """Gold answer, and what the model is asked: prompt and choice, for each choice; row by row."""
    task.set_config("num_fewshot", 0)
    for number, doc in enumerate(task.eval_docs):
        context = task.fewshot_context(doc, 0)
        requests = task.construct_requests(doc, context, metadata=(task.config.task, number, 1))
        requests = requests if isinstance(requests, list) else [requests]
        yield task.doc_to_target(doc), [request.args for request in requests]


def compare(task: str, data: Path, manager, monkeypatch: pytest.MonkeyPatch) -> int:
    (ours,) = manager.load([local_task(task, data)])["tasks"].values()
    # The harness's own task asks the Hub, which is played by `as_on_the_hub`.
    monkeypatch.setattr(datasets, "load_dataset", lambda path, name=None, **_: as_on_the_hub(path, name, data))
    (theirs,) = manager.load([task])["tasks"].values()
    rows = 0
    for one, other in zip(what_is_asked(ours), what_is_asked(theirs), strict=True):
        assert one == other
        rows += 1
    assert (ours.aggregation(), ours.higher_is_better()) == (theirs.aggregation(), theirs.higher_is_better())
    return rows


@pytest.mark.parametrize("task", LOCAL_TASKS)
def test_asks_what_the_harness_asks(task: str, tmp_path: Path, manager, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compare(task, write_small_data(tmp_path), manager, monkeypatch) == 12


ROWS = {
    "piqa": 1838,
    "winogrande": 1267,
    "hellaswag": 10042,
    "arc_easy": 2376,
    "arc_challenge": 1172,
}


@pytest.mark.long
@pytest.mark.parametrize("task", ROWS)
def test_asks_what_the_harness_asks_on_every_row(
    task: str, shared_data: Path, manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compare(task, shared_data, manager, monkeypatch) == ROWS[task]


def test_hellaswag_as_its_authors_publish_it(tmp_path: Path) -> None:
    row = {
        "activity_label": "Roof",
        "ctx_a": "A man sits.",
        "ctx_b": "he",
        "endings": ["a", "b", "c", "d"],
        "label": 3,
    }
    folder = write_small_data(tmp_path)
    assert "not capitalised" in local_note("hellaswag", folder)
    (folder / "hellaswag" / "hellaswag_val.jsonl").write_text(json.dumps({"ind": 5, "split": "val"} | row) + "\n")
    assert local_rows("hellaswag", folder) == [row | {"label": "3"}]
    assert local_note("hellaswag", folder) == ""


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"The task 'mmlu' cannot be read from local files, only piqa, .*leave"):
        local_task("mmlu", tmp_path)
    with pytest.raises(CalibrationError, match=r"has no data in .*valid\.jsonl and .*valid-labels\.lst"):
        local_task("piqa", tmp_path)
    folder = write_small_data(tmp_path)
    (folder / "piqa" / "valid-labels.lst").write_text("1\n")
    (folder / "arc" / "ARC-Easy-Test.jsonl").write_text('{"id": "1"}\n')
    (folder / "hellaswag" / "hellaswag_val_full.txt").write_text("a: b\n9\nc\n")
    for task in ("piqa", "arc_easy", "hellaswag"):
        with pytest.raises(CalibrationError, match=f"cannot be read as the task '{task}' .*; get the files again"):
            local_task(task, folder)
