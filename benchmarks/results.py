"""Everything on docs/results.md, measured in one go on one GPU.

    python benchmarks/results.py measure --model FOLDER --gguf-file NAME --data-dir DATA \\
        --output benchmarks/results.json
    python benchmarks/results_page.py

First all models are timed in turns, alone on the device; then each is evaluated by a process of its own, side by side
with the others. What is done is on the disk at once, and a second call goes on from there. Every process ends by
itself; what has not ended after `--seconds` is stopped, and missing in the results.
"""

import argparse
import copy
import json
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers
from shapes import random_model

from optimum_sleb import Scenario, SLEBConfig, SLEBPruner, evaluate
from optimum_sleb.blocks.shortening import num_blocks_of
from optimum_sleb.evaluation.protocol import TEXTS, ZERO_SHOT, paper_scores
from optimum_sleb.evaluation.scenarios import paper_scenarios, runner
from optimum_sleb.evaluation.scores import Score, record_of
from optimum_sleb.evaluation.speeds import ModelSpeed, Speed
from optimum_sleb.evaluation.time_shares import measure_time_shares
from optimum_sleb.evaluation.timing import time_in_turns
from optimum_sleb.runtime.json import parse

# The removals of one search of SmolLM2-135M-Instruct, in bfloat16 (docs/results.md).
ORDER = (5, 4, 26, 25, 3, 6, 7, 14, 13)
MODELS = {"dense": 0, "10 %": 3, "20 %": 6, "30 %": 9, "20 %, compensated": 6}
SHAPE = "llama-2-7b"
SHAPE_REMOVED = {"10 %": 4, "20 %": 7}
REPEATS = 3


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["measure", "quality", "speed"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--gguf-file")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--name", choices=MODELS, help="With quality: which model.")
    parser.add_argument("--after", type=Path, help="With quality: wait for this file before the GPU is used.")
    parser.add_argument("--limit", type=int, help="Examples of each task, for a trial.")
    parser.add_argument("--hellaswag-limit", type=int, help="Examples of HellaSwag, which has 10,042.")
    parser.add_argument("--max-windows", type=int, help="Windows of each text, for a trial.")
    parser.add_argument("--window-length", type=int, default=2048)
    parser.add_argument("--calibration-windows", type=int, default=96, help="Of the search with compensation.")
    parser.add_argument("--shape", default=SHAPE)
    parser.add_argument("--seconds", type=float, default=200, help="When all that still runs is stopped.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def load(arguments: argparse.Namespace, device: str) -> SLEBPruner:
    """The dense model."""
    gguf = {"gguf_file": arguments.gguf_file} if arguments.gguf_file else {}
    return SLEBPruner.from_pretrained(arguments.model, dtype="bfloat16", device_map=device, **gguf)


def c4_halves(data: Path, folder: Path) -> tuple[Path, Path]:
    """The C4 sample in two halves: one to calibrate on, as in docs/quality.md, and one that no model has seen."""
    documents = (data / "c4" / "sample_c4-rp1.jsonl").read_text(encoding="utf-8").splitlines()
    half = len(documents) // 2
    halves = folder / "c4-first-half.jsonl", folder / "c4-second-half.jsonl"
    for path, part in zip(halves, (documents[:half], documents[half:]), strict=True):
        path.write_text("\n".join(part) + "\n", encoding="utf-8")
    return halves


def quality(arguments: argparse.Namespace) -> None:
    """Evaluate one model, and write its scores."""
    pruner, cut = load(arguments, "cpu"), MODELS[arguments.name]
    while arguments.after and not arguments.after.exists():
        time.sleep(0.1)
    started = time.perf_counter()
    pruner.model.to(arguments.device)
    data, folder = arguments.data_dir, arguments.output.parent / arguments.output.stem
    folder.mkdir(parents=True, exist_ok=True)
    first_half, second_half = c4_halves(data, folder)
    if "compensated" in arguments.name:
        recipe = SLEBConfig(
            num_blocks_to_remove=cut,
            dataset=f"{data / 'wikitext-2-raw' / 'wiki.valid.raw'}+{first_half}",
            window_length=arguments.window_length,
            max_windows=arguments.calibration_windows,
            compensate="during",
            search="racing",
            compile="never",
            batch_size=8,  # other models are evaluated beside it
        )
        pruner.prune(recipe)
    elif cut:
        pruner.remove(ORDER[:cut])
    searched = time.perf_counter() - started
    texts = {"window_length": arguments.window_length, "batch_size": 4}
    harness = {"batch_size": 128 if arguments.device == "cuda" else 8}
    scores: list[Score] = []
    for tasks, options in (
        ((TEXTS[0], str(data / "wikitext-2-raw" / "wiki.test.raw")), {**texts, "max_windows": arguments.max_windows}),
        ((str(second_half),), {**texts, "max_windows": arguments.max_windows or 100}),
        (tuple(task for task in ZERO_SHOT if task != "hellaswag"), {**harness, "limit": arguments.limit}),
        (("hellaswag",), {**harness, "limit": arguments.limit or arguments.hellaswag_limit}),
    ):
        scores += evaluate(pruner.model, pruner.tokenizer, tasks, data_dir=data, progress_dir=folder, **options)
        print(f"{arguments.name}: {', '.join(tasks)} after {time.perf_counter() - started:.0f} s", flush=True)
    content = {
        "removed": list(pruner.report.removed_blocks) if cut else [],
        "parameters": pruner.model.num_parameters(),
        "seconds": {"pruning": searched, "all": time.perf_counter() - started},
        "scores": [asdict(score) for score in scores],
    }
    arguments.output.write_text(json.dumps(content), encoding="utf-8")


def in_turns(models: dict[str, Any], scenarios: tuple[Scenario, ...]) -> list[dict[str, Any]]:
    """Time several models against each other, the dense one first."""
    dense, *others = models.values()
    place = f"bfloat16 on {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "bfloat16 on a CPU"
    results = []
    for scenario in scenarios:
        runs = [runner(model, scenario) for model in models.values()]
        repeats = 20 if scenario.kind == "prompt" else REPEATS
        timings = time_in_turns(runs, dense.device, repeats=repeats, warm_up=3 if scenario.kind == "prompt" else 1)
        short = scenario if scenario.kind == "prompt" else Scenario("generation", scenario.batch_size, 64, 16)
        parts = [measure_time_shares(dense, runner(dense, short)), *(None for _ in others)]
        measured = [
            ModelSpeed(timing, num_blocks_of(model.config), model.get_memory_footprint(return_buffers=False), part)
            for model, timing, part in zip(models.values(), timings, parts, strict=True)
        ]
        for name, speed in zip(list(models)[1:], measured[1:], strict=True):
            against = Speed(scenario, place, speed, measured[0])
            derived = {"ideal": against.ideal, "expected": against.expected, "parts": asdict(parts[0])}
            results.append({"name": name, **asdict(against.record()), **derived})
            print(name, against.explanation(), flush=True)
    return results


def speed(arguments: argparse.Namespace) -> None:
    """Time all models in turns, alone on the device."""
    content: dict[str, Any] = {}
    started = time.perf_counter()
    # The large ones first: they are what nobody can measure without such a device.
    large = {"dense": random_model(arguments.shape, arguments.device, torch.bfloat16)}
    count = num_blocks_of(large["dense"].config)
    for name, removed in SHAPE_REMOVED.items():
        pruner = SLEBPruner(random_model(arguments.shape, arguments.device, torch.bfloat16))
        large[name] = pruner.remove(range(count - 1 - removed, count - 1))
    print(f"{arguments.shape} is there after {time.perf_counter() - started:.0f} s", flush=True)
    for families in ("shape", "smollm2"):
        if families == "smollm2":
            large.clear()
            names = [name for name in MODELS if "compensated" not in name]
            loaded = load(arguments, arguments.device).model
            models = {name: copy.deepcopy(loaded) for name in names}
            for name in names[1:]:
                SLEBPruner(models[name]).remove(ORDER[: MODELS[name]])
        else:
            models = large
        with torch.no_grad():
            for model in models.values():
                model.eval()
            content[families] = in_turns(models, paper_scenarios(models["dense"]))
        arguments.output.write_text(json.dumps(content), encoding="utf-8")
        print(f"{families} timed after {time.perf_counter() - started:.0f} s", flush=True)


def measure(arguments: argparse.Namespace) -> None:
    """Run everything, and write the results."""
    started = time.perf_counter()
    folder = arguments.output.parent / f"{arguments.output.stem}-parts"
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{number}.json" for number, name in enumerate(MODELS)}

    def start(what: str, output: Path, *more: str) -> subprocess.Popen:
        given = {name: value for name, value in vars(arguments).items() if value is not None}
        options = [
            word
            for name, value in given.items()
            if name not in ("what", "output", "name", "after", "seconds")
            for word in (f"--{name.replace('_', '-')}", str(value))
        ]
        command = [sys.executable, __file__, what, *options, "--output", str(output), *more]
        log = output.with_suffix(".log").open("w")
        return subprocess.Popen(command, stdout=log, stderr=log)

    def wait(processes: list[subprocess.Popen]) -> None:
        for process in processes:
            try:
                process.wait(max(1.0, arguments.seconds - (time.perf_counter() - started)))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        print(f"{time.perf_counter() - started:.0f} s: ended with {[process.returncode for process in processes]}")

    timed, done = folder / "speed.json", folder / "speed.done"
    timing = [] if done.is_file() else [start("speed", timed)]
    # They load their models on the CPU meanwhile, which takes as long as the other needs until it begins to time.
    after = ("--after", str(done))
    others = [start("quality", file, "--name", name, *after) for name, file in files.items() if not file.is_file()]
    wait(timing)
    done.touch()
    wait(others)
    if any(process.returncode for process in timing):
        done.unlink()  # the next call times again
    arguments.output.write_text(json.dumps(collect(files, timed, arguments), indent=1) + "\n", encoding="utf-8")
    print(f"{time.perf_counter() - started:.0f} s: {arguments.output} is written", flush=True)


def collect(files: dict[str, Path], timed: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """What all processes wrote, each model's scores against the dense one's."""
    parts = {name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()}
    scores = {name: paper_scores(parse(tuple[Score, ...], part.pop("scores"), name)) for name, part in parts.items()}
    dense = scores.get("dense", ())
    for name, part in parts.items():
        others = {(score.task, score.metric): score for score in dense if name != "dense"}
        records = [asdict(record_of(score, others.get((score.task, score.metric)))) for score in scores[name]]
        part["scores"] = [record | {"dataset": Path(record["dataset"]).name} for record in records]
    gpu = f"one {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "a CPU"
    return {
        "device": gpu,
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "models": parts,
        "speeds": json.loads(timed.read_text()) if timed.is_file() else {},
    }


if __name__ == "__main__":
    parsed = parse_arguments()
    {"measure": measure, "quality": quality, "speed": speed}[parsed.what](parsed)
