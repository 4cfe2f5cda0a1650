"""A few rows of each task, in the files of its authors, in words that the tests' tokenizer knows."""

import bz2
import json
import random
from pathlib import Path
from typing import Any

NUM_ROWS = 12
TASKS = ("piqa", "winogrande", "hellaswag", "arc_easy", "arc_challenge")


def write_small_data(folder: Path) -> Path:
    draw = random.Random(0)

    def words(most: int = 6) -> str:
        return " ".join(f"w{draw.randrange(3, 64)}" for _ in range(draw.randint(1, most)))

    def write(name: str, content: str | bytes) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    def lines(rows: list[dict]) -> str:
        return "".join(json.dumps(row) + "\n" for row in rows)

    write("piqa/valid.jsonl", lines([{"goal": words(), "sol1": words(), "sol2": words()} for _ in range(NUM_ROWS)]))
    write("piqa/valid-labels.lst", "".join(f"{draw.randrange(2)}\n" for _ in range(NUM_ROWS)))
    rows = [
        {
            "qID": str(number),
            "sentence": f"{words()} _ {words()}",
            "option1": words(1),
            "option2": words(1),
            "answer": str(draw.randint(1, 2)),
        }
        for number in range(NUM_ROWS)
    ]
    write("winogrande/dev.jsonl", lines(rows))
    for name in ("Easy", "Challenge"):
        rows = []
        for number in range(NUM_ROWS):
            labels = "ABCDE"[: draw.randint(3, 5)]
            choices = [{"text": words(), "label": label} for label in labels]
            question = {"stem": words(), "choices": choices}
            rows.append({"id": str(number), "question": question, "answerKey": draw.choice(labels)})
        write(f"arc/ARC-{name}-Test.jsonl", lines(rows))
    examples = [
        "\n".join([f"{words(2)}: {words()}", str(draw.randrange(4)), *(words() for _ in range(4))])
        for _ in range(NUM_ROWS)
    ]
    write("hellaswag/hellaswag_val_full.txt.bz2", bz2.compress(("\n".join(examples) + "\n").encode()))
    write("lambada_openai/lambada_test.jsonl", lines([{"text": f"{words()} {words(1)}"} for _ in range(NUM_ROWS)]))
    raw = "\n".join([" ", " = w3 w4 = ", " ", *(f" {words()} w5 \n w6 {words()} " for _ in range(60))]) + "\n"
    write("wikitext-2-raw/wiki.test.raw", raw)
    write("c4/sample.jsonl", lines([{"text": words(20)} for _ in range(40)]))
    return folder


def few_tasks() -> Any:
    """The harness reads the descriptions of some thousand tasks, which takes seconds; these are enough."""
    from lm_eval import tasks

    folder = Path(tasks.__file__).parent
    names = ("piqa", "winogrande", "hellaswag", "arc", "lambada")
    return tasks.TaskManager(include_defaults=False, include_path=[str(folder / name) for name in names])
