"""What each part of the best recipe gives, row by row: docs/quality.md's table, measured by the package itself.

    python benchmarks/quality.py --model FOLDER --gguf-file NAME --data-dir DATA --depths 6 3 9 --output ROWS.jsonl
    python benchmarks/quality_page.py      # writes the tables into docs/quality.md

A row is one recipe at one depth, on a fresh copy of the dense model. It is calibrated on WikiText-2 validation text
and the first half of the C4 sample, and evaluated on WikiText-2 test text, on the second half of the C4 sample and on
the paper's five zero-shot tasks, of each the first rows. What is done is on the disk at once, one JSON object a line.
A second call goes on from there; a row that fails does not keep the others from being measured.
"""

import argparse
import copy
import gc
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from healing import machine
from results import c4_halves

from optimum_sleb import SLEBConfig, SLEBPruner, evaluate
from optimum_sleb.evaluation.protocol import ZERO_SHOT, paper_scores
from optimum_sleb.evaluation.scores import Score


@dataclass(frozen=True)
class Row:
    """A recipe: in the words of the page, and as fields of `SLEBConfig`."""

    chosen: str
    compensation: str
    fields: dict[str, Any] = field(default_factory=dict)
    is_best: bool = False  # the fields replace those of the best recipe, not those of the published one


AT_GAPS, EVERY_BLOCK = {"compensate": "during"}, {"compensate": "every-block"}
DENSE, RUN = "dense", "run"
ROWS = {
    DENSE: Row("dense", ""),
    "loss": Row("greedy by loss (published)", "none"),
    "loss-gaps": Row("greedy by loss", "at the gaps", AT_GAPS),
    "loss-every-block": Row("greedy by loss", "every kept block", EVERY_BLOCK),
    "kl": Row("greedy by KL", "none", {"criterion": "kl"}),
    "kl-gaps": Row("greedy by KL", "at the gaps", {"criterion": "kl"} | AT_GAPS),
    "kl-every-block": Row("greedy by KL", "every kept block", {"criterion": "kl"} | EVERY_BLOCK),
    # A search over sets compensates the best of each depth, behind its search.
    "best-gaps": Row("sets and runs by KL", "at the gaps", {"compensate": "after"}, is_best=True),
    "best": Row("sets and runs by KL (**best**)", "every kept block", is_best=True),
    RUN: Row("one run, given", "none"),
}
MEASURED = (DENSE, "loss", "loss-gaps", "loss-every-block", "kl-every-block", "best")
SETTINGS = ("windows", "window_length", "search", "test_windows", "c4_windows", "limit")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Folder of the dense model.")
    parser.add_argument("--gguf-file", help="Its GGUF file, where it is one.")
    parser.add_argument("--data-dir", type=Path, required=True, help="Folder with wikitext-2-raw, c4 and the tasks.")
    parser.add_argument("--output", type=Path, required=True, help="File that rows are added to.")
    parser.add_argument("--rows", nargs="+", choices=[row for row in ROWS if row != RUN], default=MEASURED)
    parser.add_argument("--depths", nargs="+", type=int, default=[3, 6, 9], help="Blocks to remove, in this order.")
    parser.add_argument("--run-from", type=int, help="One more row: as many blocks in a row, from this one on.")
    parser.add_argument("--text", type=Path, help="One more text to evaluate on.")
    parser.add_argument("--windows", type=int, default=96, help="Calibration windows.")
    parser.add_argument("--window-length", type=int, default=2048)
    parser.add_argument("--search", choices=["exact", "racing"], default="racing", help="Of all rows but the best.")
    parser.add_argument("--compile", choices=["auto", "always", "never"], default="auto")
    parser.add_argument("--test-windows", type=int, help="Windows of WikiText-2 and of --text, at most.")
    parser.add_argument("--c4-windows", type=int, default=100, help="Windows of C4, at most.")
    parser.add_argument("--limit", type=int, default=1000, help="Rows of each zero-shot task, at most.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def main(arguments: argparse.Namespace) -> int:
    """Measure the rows that are not there; return how many failed."""
    wanted = [(name, depth) for name, depth in rows_of(arguments) if not is_done(arguments, name, depth)]
    if not wanted:
        return 0
    gguf = {"gguf_file": arguments.gguf_file} if arguments.gguf_file else {}
    dense = SLEBPruner.from_pretrained(arguments.model, dtype="bfloat16", device_map="cpu", **gguf)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        halves = c4_halves(arguments.data_dir, Path(folder))
        for name, depth in wanted:
            try:
                add_line(arguments.output, measured_row(dense, name, depth, halves, arguments))
            except Exception:
                traceback.print_exc()
                failed += 1
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    return failed


def rows_of(arguments: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """All rows, by name and number of removed blocks, the dense model first."""
    if DENSE in arguments.rows:
        yield DENSE, 0
    runs = [] if arguments.run_from is None else [RUN]
    for depth in arguments.depths:
        yield from ((name, depth) for name in [*arguments.rows, *runs] if name != DENSE)


def identity(arguments: argparse.Namespace, name: str, depth: int) -> dict[str, Any]:
    """What tells a row from the others of a file."""
    settings = {setting: getattr(arguments, setting) for setting in SETTINGS}
    settings["text"] = arguments.text and arguments.text.name
    settings["run_from"] = arguments.run_from if name == RUN else None
    model = arguments.gguf_file or Path(arguments.model).resolve().name
    return {"model": model, "row": name, "depth": depth, "settings": settings}


def is_done(arguments: argparse.Namespace, name: str, depth: int) -> bool:
    """Whether the row is in the file."""
    wanted = identity(arguments, name, depth)
    return any(wanted.items() <= row.items() for row in read_lines(arguments.output))


def read_lines(file: Path) -> list[dict[str, Any]]:
    """All rows of a file; a line that was cut off is none."""
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        with suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def add_line(file: Path, row: dict[str, Any]) -> None:
    """Add a row in one write, so that several processes may add to one file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    was_cut_off = file.is_file() and not file.read_bytes().endswith(b"\n")
    with file.open("a", encoding="utf-8") as lines:
        lines.write("\n" * was_cut_off + json.dumps(row) + "\n")


def measured_row(
    dense: SLEBPruner, name: str, depth: int, halves: tuple[Path, Path], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Prune a copy of the dense model, and evaluate it."""
    pruner = SLEBPruner(copy.deepcopy(dense.model).to(arguments.device), dense.tokenizer)
    wikitext, (first_half, second_half) = arguments.data_dir / "wikitext-2-raw", halves
    cost: dict[str, Any] = {}
    if name != DENSE:
        cost = prune(pruner, name, depth, f"{wikitext / 'wiki.valid.raw'}+{first_half}", arguments)
        print(f"{name}, {depth} blocks: {cost}", flush=True)
    started = time.perf_counter()
    texts = {"wikitext2": (wikitext / "wiki.test.raw", arguments.test_windows)}
    texts["c4"] = (second_half, arguments.c4_windows)
    if arguments.text:
        texts["text"] = (arguments.text, arguments.test_windows)
    windows = {"window_length": arguments.window_length, "batch_size": 4}
    perplexities = {}
    for text, (file, most) in texts.items():
        (score,) = evaluate(pruner.model, pruner.tokenizer, [str(file)], max_windows=most, **windows)
        perplexities[text] = plain(score)
    harness = {"batch_size": 128 if pruner.model.device.type == "cuda" else 8, "limit": arguments.limit}
    tasks = evaluate(pruner.model, pruner.tokenizer, ZERO_SHOT, data_dir=arguments.data_dir, **harness)
    zero_shot = {score.task: plain(score) | {"right": right(score)} for score in tasks if is_of_paper(score)}
    mean = paper_scores(tasks)[-1]
    print(f"{name}, {depth} blocks: {perplexities}, zero-shot {mean.value:.4f}", flush=True)
    return identity(arguments, name, depth) | {
        "blocks": [] if name == DENSE else list(pruner.report.removed_blocks),
        **cost,
        "perplexity": perplexities,
        "zero_shot": zero_shot,
        "zero_shot_mean": plain(mean),
        "evaluation_seconds": time.perf_counter() - started,
        "made": {"date": datetime.now(UTC).date().isoformat(), **machine()},
    }


def prune(pruner: SLEBPruner, name: str, depth: int, dataset: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Remove blocks by the recipe of a row, and return what that cost."""
    on_gpu, weights = pruner.model.device.type == "cuda", 0
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        weights = torch.cuda.memory_allocated()
    if name == RUN:
        pruner.remove(range(arguments.run_from, arguments.run_from + depth))
    else:
        pruner.prune(recipe(name, depth, dataset, arguments))
    report = pruner.report
    return {
        "seconds": report.seconds,
        # Of the last time that the cuts were compensated; "during" has done that at every depth before.
        "compensation_seconds": report.compensation and report.compensation.seconds,
        "weights_bytes": weights,
        "peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
    }


def recipe(name: str, depth: int, dataset: str, arguments: argparse.Namespace) -> SLEBConfig:
    """The recipe of a row."""
    row = ROWS[name]
    common = {
        "num_blocks_to_remove": depth,
        "dataset": dataset,
        "max_windows": arguments.windows,
        "window_length": arguments.window_length,
        "compile": arguments.compile,
    }
    if row.is_best:
        return SLEBConfig.best(**common | row.fields)
    return SLEBConfig(**common | {"search": arguments.search} | row.fields)


def is_of_paper(score: Score) -> bool:
    """Whether it is a metric that the paper's mean is made of."""
    return ZERO_SHOT[score.task] == score.metric


def plain(score: Score) -> dict[str, Any]:
    """A score for JSON."""
    return {"value": score.value, "stderr": score.stderr, "examples": score.num_examples}


def right(score: Score) -> str:
    """Which examples were answered right, as a row of 0 and 1: two models are compared example by example."""
    return "".join(f"{example:.0f}" for example in score.examples)


if __name__ == "__main__":
    sys.exit(main(parse_arguments()))
