"""What healing gives back: SmolLM2-135M-Instruct without a fifth of its blocks, healed by `optimum_sleb.heal`.

    python benchmarks/healing.py measure --model FOLDER --data FOLDER --work FOLDER [--best FOLDER] [--parts NAME ...]
    python benchmarks/healing.py shape --methods lora distill    # seconds a step and memory of a 7B
    python benchmarks/healing.py page [--rows FILE]              # writes the figures into docs/healing.md

`measure` makes and tests one model after the other, alone on its device, and writes a line of JSON for each at once; a
model that has a line already is left out, so that a second call goes on. The text to heal on is WikiText-2 (validation
text, and the first megabyte of the training text) and the first half of the C4 sample (`-c4`: that alone; `-own`: what
the dense model wrote, from its first token on); it is tested on WikiText-2 test text, on the second half of the C4
sample, on the paper's five zero-shot tasks, of each the first rows, and on LAMBADA, where the last word of a passage
must be the likeliest. `--best` is a pruned model, saved.
"""

import argparse
import gc
import json
import sys
import textwrap
import time
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "docs" / "healing.json", ROOT / "docs" / "healing.md"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
BLOCKS = [5, 4, 26, 25, 3, 6]


@dataclass(frozen=True)
class Part:
    """One model: where it starts, and how it is healed."""

    start: str
    method: str | None = None
    text: str = "heal"  # or "c4-first", or "own": what the dense model wrote
    writes: bool = False  # the teacher writes down what it predicts


METHODS = {"lora": "lora", "full": "full", "distilled": "distill"}
STARTS = {"plain": "pruned", "compensated": "compensated", "best": "best without training"}
RECIPES = {"lora": "LoRA", "full": "full fine-tuning", "distilled": "distillation", "written": "distillation, top 64"}
TEXTS = {"c4": "on C4 alone", "own": "on text of the dense model"}
PARTS = {"dense": Part("dense")}
for _start in STARTS:
    PARTS[_start] = Part(_start)
    PARTS |= {f"{recipe}-{_start}": Part(_start, method) for recipe, method in METHODS.items()}
    PARTS[f"written-{_start}"] = Part(_start, "distill", writes=True)
    for _recipe in ("full", "distilled"):
        PARTS[f"{_recipe}-{_start}-c4"] = Part(_start, METHODS[_recipe], "c4-first")
        PARTS[f"{_recipe}-{_start}-own"] = Part(_start, METHODS[_recipe], "own")
_TOLD = (
    *("steps", "batch_size", "length", "rank", "learning_rate", "lora_learning_rate"),
    *("windows", "window_length", "limit"),
)
FIRST, LAST = "<!-- figures: written by benchmarks/healing.py -->\n", "<!-- end of the figures -->\n"


def name_of(part: str) -> str:
    """A part in words, for the table."""
    recipe, _, rest = part.partition("-")
    if not rest:
        return STARTS.get(part, part)
    start, _, text = rest.partition("-")
    words = f"{STARTS[start]}, then {RECIPES[recipe]}"
    return f"{words}, {TEXTS[text]}" if text else words


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    page = commands.add_parser("page")
    page.add_argument("--rows", type=Path, help="What `measure` wrote; without, the page is written from docs/.")
    shape = commands.add_parser("shape")
    shape.add_argument("--shape", default="llama-2-7b")
    shape.add_argument("--methods", nargs="+", choices=("lora", "full", "distill"), default=["lora", "distill"])
    shape.add_argument("--removed", type=int, default=7)
    shape.add_argument("--work", type=Path, default=Path("healing"))
    measured = commands.add_parser("measure")
    measured.add_argument("--model", type=Path, required=True, help="Folder with the dense model.")
    measured.add_argument("--gguf-file", default=GGUF_FILE, help="Left out where the folder has no such file.")
    measured.add_argument("--blocks", type=int, nargs="+", default=BLOCKS, help="Blocks that plain SLEB removes.")
    measured.add_argument("--best", type=Path, help="Folder of the best model without training.")
    measured.add_argument("--data", type=Path, required=True, help="Folder with wikitext-2-raw, c4 and the tasks.")
    measured.add_argument("--work", type=Path, default=Path("healing"), help="Folder for models and texts.")
    measured.add_argument("--rows", type=Path, help="File of the results (default: rows.jsonl in --work).")
    measured.add_argument("--parts", nargs="+", choices=PARTS, help="Models to measure (default: see the code).")
    for command in (shape, measured):
        command.add_argument("--steps", type=int, default=150)
        command.add_argument("--batch-size", type=int, default=16)
        command.add_argument("--length", type=int, default=512, help="Tokens in a row to train on.")
        command.add_argument("--rank", type=int, default=64)
    measured.add_argument("--learning-rate", type=float, default=2e-4, help="Of full fine-tuning, distillation.")
    measured.add_argument("--lora-learning-rate", type=float, default=2e-3)
    measured.add_argument("--windows", type=int, default=48, help="Calibration windows to compensate on.")
    measured.add_argument("--window-length", type=int, default=2048)
    measured.add_argument("--test-windows", type=int, default=None, help="Windows of each test text, at most.")
    measured.add_argument("--limit", type=int, default=1000, help="Rows of each zero-shot task, at most.")
    measured.add_argument("--no-tasks", action="store_true", help="Perplexity only.")
    return parser.parse_args()


def main() -> None:
    """Measure, or write the page."""
    arguments = parse_arguments()
    if arguments.command == "page":
        if arguments.rows:
            RESULTS.write_text(json.dumps(collected(arguments.rows), indent=2) + "\n", encoding="utf-8")
        PAGE.write_text(filled(PAGE.read_text("utf-8"), json.loads(RESULTS.read_text("utf-8"))), encoding="utf-8")
    elif arguments.command == "shape":
        time_shape(arguments)
    else:
        measure(arguments)


def default_parts(best: Path | None) -> list[str]:
    """The three methods from plain SLEB and from the best model that there is; from that, other texts as well."""
    start = "best" if best else "compensated"
    parts = ["dense", "plain", *(f"{recipe}-plain" for recipe in METHODS), start]
    parts += [f"{recipe}-{start}" for recipe in (*METHODS, "written")]
    return [*parts, *(f"{recipe}-{start}-{text}" for text in TEXTS for recipe in ("full", "distilled"))]


def measure(arguments: argparse.Namespace) -> None:
    """Make and test what has no line yet, one after the other."""
    arguments.work.mkdir(parents=True, exist_ok=True)
    rows = arguments.rows or arguments.work / "rows.jsonl"
    write_texts(arguments.data, arguments.work)
    failed = 0
    for part in arguments.parts or default_parts(arguments.best):
        if part in lines_of(rows):
            log(part, "is there")
            continue
        try:
            result = run_part(part, arguments)
        except Exception:  # the others go on
            traceback.print_exc()
            failed += 1
            continue
        told = {name: getattr(arguments, name) for name in _TOLD}
        line = {
            "part": part,
            **result,
            "made": {"date": datetime.now(UTC).date().isoformat(), "alone": True, **told, **machine()},
        }
        with rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        log(part, json.dumps(result))
        gc.collect()
        empty_cache()
    sys.exit(1 if failed else 0)


def lines_of(rows: Path) -> dict[str, dict[str, Any]]:
    """What is measured already, by part; a line that was cut short does not count."""
    found = {}
    for line in rows.read_text("utf-8").splitlines() if rows.is_file() else []:
        try:
            result = json.loads(line)
        except ValueError:
            continue
        found[result.pop("part")] = result
    return found


def collected(rows: Path) -> dict[str, Any]:
    """The results in the form of docs/healing.json."""
    models = lines_of(rows)
    made = [one.pop("made") for one in models.values()]
    return {"made": made[-1], "models": models}


def write_texts(data: Path, work: Path) -> None:
    """The texts to heal, to calibrate and to test on."""
    with (data / "c4" / "sample_c4-rp1.jsonl").open(encoding="utf-8") as lines:
        documents = [json.loads(line)["text"] for line in lines]
    half = len(documents) // 2
    wikitext = data / "wikitext-2-raw"
    valid = (wikitext / "wiki.valid.raw").read_text("utf-8")
    train = (wikitext / "wiki.train.first1MB.noblank.txt").read_text("utf-8", errors="ignore")
    texts = {"c4-first": "\n\n".join(documents[:half]), "c4": "\n\n".join(documents[half:]), "wikitext2-valid": valid}
    texts["wikitext2"] = (wikitext / "wiki.test.raw").read_text("utf-8")
    texts["heal"] = "\n\n".join([valid, train, texts["c4-first"]])
    for name, text in texts.items():
        (work / f"{name}.txt").write_text(text, encoding="utf-8")


def run_part(part: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Make one model, heal it and test it."""
    from optimum_sleb import evaluate, perplexity
    from optimum_sleb.evaluation.protocol import MEAN, ZERO_SHOT, paper_scores

    what, result = PARTS[part], {}
    if what.start == "dense":
        pruner = dense_model(arguments)
        model, tokenizer = pruner.model, pruner.tokenizer
    else:
        model, tokenizer = load(start_folder(what.start, arguments))
        result |= start_numbers(what.start, arguments) if what.method is None else {}
    if what.method is not None:
        model, result = healed(part, what, model, tokenizer, arguments)
    for name, most in (("wikitext2", None), ("c4", 100)):
        windows = {"window_length": arguments.window_length, "max_windows": arguments.test_windows or most}
        measured = perplexity(model, tokenizer, str(arguments.work / f"{name}.txt"), batch_size=8, **windows)
        result[name] = {"perplexity": measured.perplexity, "windows": measured.num_windows}
        log(part, f"{name} {measured.perplexity:.2f}")
    if not arguments.no_tasks:
        batch_size = 128 if device() == "cuda" else 8
        harness = {"limit": arguments.limit, "data_dir": arguments.data, "batch_size": batch_size}
        scores = evaluate(model, tokenizer, ZERO_SHOT, **harness)
        result["zero_shot"] = {score.task: [score.value, score.stderr] for score in paper_scores(scores)}
        result["zero_shot_mean"] = result["zero_shot"].pop(MEAN)
        of_lambada = evaluate(model, tokenizer, ["lambada_openai"], **harness)
        result["lambada"] = next([score.value, score.stderr] for score in of_lambada if score.metric == "acc")
    return result


def healed(
    part: str, what: Part, model: Any, tokenizer: Any, arguments: argparse.Namespace
) -> tuple[Any, dict[str, Any]]:
    """Heal a model, and load what was saved of it."""
    from optimum_sleb import heal, save_healed

    rate = arguments.lora_learning_rate if what.method == "lora" else arguments.learning_rate
    settings: dict[str, Any] = {"steps": arguments.steps, "batch_size": arguments.batch_size, "learning_rate": rate}
    if what.method == "lora":
        settings["rank"] = arguments.rank
    if what.method == "distill":
        settings["teacher"] = dense_model(arguments).model
    if what.writes:
        settings["cache_teacher"] = arguments.work / f"{part}-teacher"
    data = own_text(arguments) if what.text == "own" else arguments.work / f"{what.text}.txt"
    reset_peak()
    heal(model, tokenizer, what.method, data=data, window_length=arguments.length, **settings)
    peak = peak_gigabytes()
    report = save_healed(model, arguments.work / part, overwrite=True)
    healing = report.healing[-1]
    numbers = {"steps": healing.steps, "tokens": healing.tokens, "seconds": healing.seconds, "peak_gigabytes": peak}
    return load(arguments.work / part)[0], numbers


def own_text(arguments: argparse.Namespace) -> Any:
    """As many rows of the dense model's own as a healing takes, written once."""
    from datasets import load_from_disk

    from optimum_sleb import heal

    place = arguments.work / "own"
    if not (place / "self-data" / "rows").is_dir():
        started = time.perf_counter()
        pruner = dense_model(arguments)
        settings = {
            "steps": 1,
            "batch_size": 1,
            "window_length": arguments.length,
            "output_dir": place,
            "resume": True,
        }
        count = arguments.steps * arguments.batch_size
        # The model that learns is of no use here, only what was written for it.
        student = dense_model(arguments).model
        heal(student, pruner.tokenizer, "lora", self_data=count, teacher=pruner.model, **settings)
        log("own", f"{count} rows in {time.perf_counter() - started:.0f} s")
    return load_from_disk(str(place / "self-data" / "rows"))


def start_folder(start: str, arguments: argparse.Namespace) -> Path:
    """The folder of a pruned model, which is made where it is not there."""
    if start == "best":
        if arguments.best is None:
            raise SystemExit("Name the folder of the best model without training (--best).")
        return arguments.best
    folder = arguments.work / start
    if not (folder / "config.json").is_file():
        from optimum_sleb import SLEBConfig

        pruner, started = dense_model(arguments), time.perf_counter()
        if start == "plain":
            pruner.remove(arguments.blocks)
        else:
            mixture = "+".join(str(arguments.work / f"{name}.txt") for name in ("wikitext2-valid", "c4-first"))
            windows = {"window_length": arguments.window_length, "max_windows": arguments.windows}
            how = {"compensate": "during", "search": "racing", "compile": "never", "batch_size": 8}
            pruner.prune(SLEBConfig(num_blocks_to_remove=len(arguments.blocks), dataset=mixture, **windows, **how))
        pruner.save_pretrained(folder)
        (arguments.work / f"{start}.seconds").write_text(str(time.perf_counter() - started))
    return folder


def start_numbers(start: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The blocks that a pruned model lacks, and what it took to choose them, where that was measured."""
    from optimum_sleb import PruningReport

    report, seconds = PruningReport.load(start_folder(start, arguments)), arguments.work / f"{start}.seconds"
    measured = {"prune_seconds": float(seconds.read_text())} if seconds.is_file() else {}
    return {"blocks": list(report.removed_blocks), **measured}


def load(folder: Path) -> tuple[Any, Any]:
    """A saved model and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device_map=device())
    return model, AutoTokenizer.from_pretrained(folder)


def dense_model(arguments: argparse.Namespace) -> Any:
    """The dense model, ready to be pruned."""
    from optimum_sleb import SLEBPruner

    has_file = (arguments.model / arguments.gguf_file).is_file()
    gguf = {"gguf_file": arguments.gguf_file} if has_file else {}
    return SLEBPruner.from_pretrained(arguments.model, dtype="bfloat16", device_map=device(), **gguf)


def time_shape(arguments: argparse.Namespace) -> None:
    """Seconds a step and peak memory of a large shape with random weights, on random tokens."""
    import torch
    from shapes import random_model

    from optimum_sleb import SLEBPruner, heal
    from optimum_sleb.hub.healed import healings_of

    generator = torch.Generator().manual_seed(0)
    for method in arguments.methods:
        dense = random_model(arguments.shape, device(), torch.bfloat16)
        rows = (arguments.steps * arguments.batch_size, arguments.length)
        ids = torch.randint(3, dense.config.vocab_size, rows, generator=generator)
        settings: dict[str, Any] = {"rank": None if method == "full" else arguments.rank}
        pruner = SLEBPruner(random_model(arguments.shape, device(), torch.bfloat16))
        pruner.remove(list(range(1, 1 + arguments.removed)))
        if method == "distill":
            settings |= {"teacher": dense, "cache_teacher": arguments.work / f"{arguments.shape}-teacher"}
        else:
            dense = None
        reset_peak()
        started = time.perf_counter()
        training = {"steps": arguments.steps, "batch_size": arguments.batch_size, "window_length": arguments.length}
        heal(pruner.model, method=method, data=ids, **training, **settings)
        (healing,) = healings_of(pruner.model)
        numbers = {
            "shape": arguments.shape,
            "method": method,
            "seconds_a_step": healing.seconds / healing.steps,
            "seconds": time.perf_counter() - started,
            "peak_gigabytes": peak_gigabytes(),
            **machine(),
        }
        print(json.dumps(numbers), flush=True)
        dense = pruner = None
        gc.collect()
        empty_cache()


def filled(page: str, results: dict[str, Any]) -> str:
    """A page with the figures that a run of `measure` gave."""
    before, rest = page.split(FIRST)
    _, after = rest.split(LAST)
    return before + FIRST + "\n" + figures(results) + "\n" + LAST + after


def figures(results: dict[str, Any]) -> str:
    """The table of results, and how they were made."""
    made, models = results["made"], results["models"]
    rows = [
        "| | WikiText-2 test | C4 | recovered | zero-shot mean | LAMBADA | tokens | minutes |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for part in (part for part in PARTS if part in models):
        one = models[part]
        recovered = [recovery(models, part, text) for text in ("wikitext2", "c4")]
        told = "" if part in ("dense", "plain") else " / ".join(f"{share:.0%}" for share in recovered)
        seconds = one.get("seconds", one.get("prune_seconds") if part in ("compensated", "best") else None)
        minutes = "" if seconds is None else f"{seconds / 60:.1f}"
        tokens = f"{one['tokens'] / 1e6:.1f} M" if "tokens" in one else ""
        perplexities = [f"{one[text]['perplexity']:.1f}" for text in ("wikitext2", "c4")]
        accuracies = [_percent(one[name]) if name in one else "" for name in ("zero_shot_mean", "lambada")]
        cells = [
            name_of(part),
            *perplexities,
            told,
            *accuracies,
            tokens,
            minutes,
        ]
        rows.append(f"| {' | '.join(cells)} |")
    windows = [models["dense"][text]["windows"] for text in ("wikitext2", "c4")]
    blocks = {part: " ".join(map(str, models[part]["blocks"])) for part in STARTS if part in models}
    chosen = {"compensated": f" (compensated, chosen so on {made['windows']} windows)", "plain": " (pruned)"}
    without = ", ".join(f"{removed}{chosen.get(part, f' ({STARTS[part]})')}" for part, removed in blocks.items())
    ran = "each alone on it" if made.get("alone") else "all ran side by side, and each is faster alone"
    rate = f"learning rate {made['learning_rate']:g}"
    recipes = {
        "lora": f"LoRA of rank {made['rank']} on all linear layers, learning rate {made['lora_learning_rate']:g}",
        "full": f"full fine-tuning, {rate}",
        "distilled": f"distillation from the dense model, {rate}",
    }
    used = [recipe for kind, recipe in recipes.items() if any(part.startswith(kind) for part in models)]
    told = (
        f"SmolLM2-135M-Instruct without 6 of its 30 blocks: {without}. "
        f"{made['steps']} steps of {made['batch_size']} rows of {made['length']} "
        f"tokens. Recipes: {'; '.join(used)}. Perplexity of the model as saved, in bfloat16, on {windows[0]} and "
        f'{windows[1]} windows of {made["window_length"]} tokens. "Recovered" is the share of what the cut added to '
        "the perplexity, on WikiText-2 and C4. Zero-shot: the mean of PIQA, WinoGrande, HellaSwag, ARC-easy and "
        f"ARC-challenge, in per cent, on the first {made['limit']} rows; LAMBADA: how often the last word of a "
        "passage is the model's first choice, in per cent, on as many. "
        f"Measured on {made['gpus']} {made['device']} with torch {made['torch']}, transformers "
        f"{made['transformers']}, on {made['date']}; {ran}."
    )
    return "\n".join([*rows, "", textwrap.fill(told, width=119)]) + "\n"


def recovery(models: dict[str, Any], part: str, text: str) -> float:
    """The share of the perplexity that the plain cut added which a model takes back."""
    dense, plain, healed = (models[name][text]["perplexity"] for name in ("dense", "plain", part))
    return (plain - healed) / (plain - dense)


def machine() -> dict[str, Any]:
    """What it was measured with."""
    import torch
    import transformers

    device = torch.cuda.get_device_name().removeprefix("NVIDIA ") if torch.cuda.is_available() else "CPU"
    return {
        "device": device,
        "gpus": torch.cuda.device_count(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def device() -> str:
    """Where everything is computed."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def empty_cache() -> None:
    """Give memory back that a part took."""
    import torch

    torch.cuda.empty_cache()


def reset_peak() -> None:
    """Begin to watch the memory of the device."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_gigabytes() -> float | None:
    """The most memory that was taken since; `None` without a GPU."""
    import torch

    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None


def log(part: str, what: str) -> None:
    """Tell how far a part is."""
    print(f"{datetime.now(UTC):%H:%M:%S} {part}: {what}", flush=True)


def _percent(score: list[float]) -> str:
    value, error = score
    return f"{100 * value:.1f} ± {100 * error:.1f}"


if __name__ == "__main__":
    main()
