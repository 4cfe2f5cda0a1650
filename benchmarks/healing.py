"""What healing gives back: SmolLM2-135M-Instruct without a fifth of its blocks, healed by the recipes in examples/.

    python benchmarks/healing.py measure --model FOLDER --data FOLDER --output docs/healing.json
    python benchmarks/healing.py page      # writes the figures into docs/healing.md

`measure` runs every model in a process of its own, all at once, and logs as it goes; what one of them measured stays
when another fails. The text to heal on is WikiText-2 (validation text, and the first megabyte of the training text)
and the first half of the C4 sample; it is tested on WikiText-2 test text, on the second half of the C4 sample, and on
the paper's five zero-shot tasks, of each the first rows.
"""

import argparse
import json
import os
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "docs" / "healing.json", ROOT / "docs" / "healing.md"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
BLOCKS = [5, 4, 26, 25, 3, 6]
# What is measured, and what each fine-tuned model starts from.
PARTS = {"dense": None, "plain": None, "compensated": None}
PARTS |= {f"{recipe}-plain": "plain" for recipe in ("lora", "full", "distilled")}
PARTS |= {f"{recipe}-compensated": "compensated" for recipe in ("full", "distilled")}
NAMES = {
    "dense": "dense",
    "plain": "pruned",
    "lora-plain": "pruned, then LoRA",
    "full-plain": "pruned, then full fine-tuning",
    "distilled-plain": "pruned, then distillation",
    "compensated": "compensated",
    "full-compensated": "compensated, then full fine-tuning",
    "distilled-compensated": "compensated, then distillation",
}
_SETTINGS = (
    *("model", "data", "work", "steps", "batch_size", "length", "rank", "learning_rate", "lora_learning_rate"),
    *("windows", "window_length", "test_windows", "limit"),
)
_TOLD = (
    *("steps", "batch_size", "length", "rank", "learning_rate", "lora_learning_rate"),
    *("windows", "window_length", "limit"),
)
FIRST, LAST = "<!-- figures: written by benchmarks/healing.py -->\n", "<!-- end of the figures -->\n"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("page")
    for name in ("measure", "part"):
        command = commands.add_parser(name)
        command.add_argument("--model", type=Path, required=True, help="Folder with the dense model, a GGUF file.")
        command.add_argument("--data", type=Path, required=True, help="Folder with wikitext-2-raw, c4 and the tasks.")
        command.add_argument("--work", type=Path, default=Path("healing"), help="Folder for models and logs.")
        command.add_argument("--steps", type=int, default=150)
        command.add_argument("--batch-size", type=int, default=16)
        command.add_argument("--length", type=int, default=512, help="Tokens in a row to train on.")
        command.add_argument("--rank", type=int, default=64)
        command.add_argument("--learning-rate", type=float, default=2e-4, help="Of full fine-tuning, distillation.")
        command.add_argument("--lora-learning-rate", type=float, default=2e-3)
        command.add_argument("--windows", type=int, default=48, help="Calibration windows to compensate on.")
        command.add_argument("--window-length", type=int, default=2048)
        command.add_argument("--test-windows", type=int, default=None, help="Windows of each test text, at most.")
        command.add_argument("--limit", type=int, default=1000, help="Rows of each zero-shot task, at most.")
    measured = commands.choices["measure"]
    measured.add_argument("--output", type=Path, default=RESULTS)
    measured.add_argument("--seconds", type=float, default=300, help="Stop what still runs then.")
    commands.choices["part"].add_argument("part", choices=PARTS)
    return parser.parse_args()


def main() -> None:
    """Measure, or write the page."""
    arguments = parse_arguments()
    if arguments.command == "page":
        PAGE.write_text(filled(PAGE.read_text("utf-8"), json.loads(RESULTS.read_text("utf-8"))), encoding="utf-8")
    elif arguments.command == "part":
        run_part(arguments)
    else:
        measure(arguments)


def measure(arguments: argparse.Namespace) -> None:
    """Run all parts at once, and collect what they measured."""
    started = time.perf_counter()
    arguments.work.mkdir(parents=True)  # a fresh one: what an earlier run left would pass for results of this one
    write_texts(arguments.data, arguments.work)
    settings = {name: getattr(arguments, name) for name in _SETTINGS}
    words = [word for name, value in settings.items() if value is not None for word in (_option(name), str(value))]
    running = {
        part: subprocess.Popen(
            [sys.executable, __file__, "part", *words, part],
            start_new_session=True,
            env=on_gpu(number),
        )
        for number, part in enumerate(PARTS)
    }
    while any(process.poll() is None for process in running.values()):
        if time.perf_counter() - started > arguments.seconds:
            for process in running.values():
                process.kill()
            log("measure", f"stopped after {arguments.seconds:.0f} s")
            break
        for part, parent in PARTS.items():
            if parent and running[parent].poll() and not (arguments.work / parent / "config.json").is_file():
                running[part].kill()  # what it waits for will never be there
        time.sleep(0.5)
    found = {part: arguments.work / f"{part}.json" for part in PARTS}
    results = {part: json.loads(file.read_text()) for part, file in found.items() if file.is_file()}
    told = {name: value for name, value in settings.items() if name in _TOLD}
    made = {"date": datetime.now(UTC).date().isoformat(), **told, **machine()}
    arguments.output.write_text(json.dumps({"made": made, "models": results}, indent=2) + "\n", encoding="utf-8")
    log("measure", f"{len(results)} of {len(PARTS)} in {time.perf_counter() - started:.0f} s")


def on_gpu(number: int) -> dict[str, str]:
    """The environment of a part: the GPUs take turns."""
    import torch

    count = torch.cuda.device_count()
    return os.environ | ({"CUDA_VISIBLE_DEVICES": str(number % count)} if count else {})


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


def run_part(arguments: argparse.Namespace) -> None:
    """Make one model and test it."""
    part, work = arguments.part, arguments.work
    # Imported here: `page` needs none of it, and the parts import while they wait for each other.
    sys.path.insert(0, str(ROOT / "examples"))
    import torch
    from heal_with_trainer import DEVICE
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from optimum_sleb import evaluate, perplexity, save_healed
    from optimum_sleb.evaluation.protocol import MEAN, ZERO_SHOT, paper_scores

    log(part, "imported")
    torch.manual_seed(0)
    result: dict[str, Any] = {}
    if (parent := PARTS[part]) is None:
        model, tokenizer = prune(part, arguments, result)
    else:
        while not (work / parent / "config.json").is_file():
            time.sleep(0.2)
        tokenizer = AutoTokenizer.from_pretrained(work / parent)
        model = AutoModelForCausalLM.from_pretrained(work / parent, dtype=torch.bfloat16, device_map=DEVICE)
        model, healing = heal(part, model, tokenizer, arguments)
        save_healed(model, work / part, parent=work / parent, healing=healing, overwrite=True)
        model = AutoModelForCausalLM.from_pretrained(work / part, dtype=torch.bfloat16, device_map=DEVICE)
        result |= {"steps": healing.steps, "tokens": healing.tokens, "seconds": healing.seconds}
        log(part, f"healed in {healing.seconds:.1f} s")
    for name, most in (("wikitext2", None), ("c4", 100)):
        windows = {"window_length": arguments.window_length, "max_windows": arguments.test_windows or most}
        measured = perplexity(model, tokenizer, str(work / f"{name}.txt"), batch_size=8, **windows)
        result[name] = {"perplexity": measured.perplexity, "windows": measured.num_windows}
        log(part, f"{name} {measured.perplexity:.2f}")
    keep(work / f"{part}.json", result)  # should the tasks fail, this is there
    scores = paper_scores(evaluate(model, tokenizer, ZERO_SHOT, limit=arguments.limit, data_dir=arguments.data))
    result["zero_shot"] = {score.task: [score.value, score.stderr] for score in scores}
    result["zero_shot_mean"] = result["zero_shot"].pop(MEAN)
    log(part, f"zero-shot mean {_percent(result['zero_shot_mean'])}")
    keep(work / f"{part}.json", result)


def keep(file: Path, result: dict[str, Any]) -> None:
    """Write what a part measured, whole or not at all."""
    fresh = file.with_name(f".{file.name}")
    fresh.write_text(json.dumps(result))
    fresh.rename(file)


def prune(part: str, arguments: argparse.Namespace, result: dict[str, Any]) -> tuple[Any, Any]:
    """The dense model, or what a cut leaves of it, saved for those that wait."""
    from optimum_sleb import SLEBConfig

    pruner = dense_model(arguments)
    log(part, "loaded")
    started = time.perf_counter()
    if part == "plain":
        pruner.remove(BLOCKS)
    elif part == "compensated":
        mixture = "+".join(str(arguments.work / f"{name}.txt") for name in ("wikitext2-valid", "c4-first"))
        windows = {"window_length": arguments.window_length, "max_windows": arguments.windows}
        how = {"compensate": "during", "search": "racing", "compile": "never", "batch_size": 8}
        pruner.prune(SLEBConfig(num_blocks_to_remove=len(BLOCKS), dataset=mixture, **windows, **how))
    if part != "dense":
        result |= {"blocks": list(pruner.report.removed_blocks), "prune_seconds": time.perf_counter() - started}
        pruner.save_pretrained(arguments.work / part)
        log(part, f"saved, without blocks {result['blocks']}")
    return pruner.model, pruner.tokenizer


def heal(part: str, model: Any, tokenizer: Any, arguments: argparse.Namespace) -> tuple[Any, Any]:
    """One of the recipes, as it stands in examples/."""
    import distill_from_dense
    import heal_with_lora
    import heal_with_trainer

    text = (arguments.work / "heal.txt").read_text("utf-8")
    rows = heal_with_trainer.rows_of(text, tokenizer, arguments.length)
    log(part, f"{len(rows)} rows of {arguments.length} tokens")
    settings = (arguments.work / f"{part}-run", arguments.steps, arguments.batch_size)
    if part.startswith("lora"):
        training = heal_with_trainer.training(*settings, arguments.lora_learning_rate)
        return heal_with_lora.heal(model, tokenizer, rows, "heal.txt", arguments.rank, training)
    training = heal_with_trainer.training(*settings, arguments.learning_rate)
    if part.startswith("distilled"):
        dense = dense_model(arguments).model
        return model, distill_from_dense.heal(model, dense, rows, "heal.txt", training)
    return model, heal_with_trainer.heal(model, rows, "heal.txt", training)


def dense_model(arguments: argparse.Namespace) -> Any:
    """The dense model, ready to be pruned."""
    from heal_with_trainer import DEVICE

    from optimum_sleb import SLEBPruner

    return SLEBPruner.from_pretrained(arguments.model, gguf_file=GGUF_FILE, dtype="bfloat16", device_map=DEVICE)


def filled(page: str, results: dict[str, Any]) -> str:
    """A page with the figures that a run of `measure` gave."""
    before, rest = page.split(FIRST)
    _, after = rest.split(LAST)
    return before + FIRST + "\n" + figures(results) + "\n" + LAST + after


def figures(results: dict[str, Any]) -> str:
    """The table of results, and how they were made."""
    made, models = results["made"], results["models"]
    rows = [
        "| | WikiText-2 test | C4 | recovered | zero-shot mean | tokens | minutes |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for part in (part for part in NAMES if part in models):
        one = models[part]
        recovered = [recovery(models, part, text) for text in ("wikitext2", "c4")]
        told = "" if part in ("dense", "plain") else " / ".join(f"{share:.0%}" for share in recovered)
        seconds = one.get("seconds", one.get("prune_seconds") if part == "compensated" else None)
        minutes = "" if seconds is None else f"{seconds / 60:.1f}"
        tokens = f"{one['tokens'] / 1e6:.1f} M" if "tokens" in one else ""
        perplexities = [f"{one[text]['perplexity']:.1f}" for text in ("wikitext2", "c4")]
        zero_shot = _percent(one["zero_shot_mean"]) if "zero_shot_mean" in one else ""
        cells = [
            NAMES[part],
            *perplexities,
            told,
            zero_shot,
            tokens,
            minutes,
        ]
        rows.append(f"| {' | '.join(cells)} |")
    windows = [models["dense"][text]["windows"] for text in ("wikitext2", "c4")]
    blocks = [" ".join(map(str, models[part]["blocks"])) for part in ("plain", "compensated")]
    rate = f"learning rate {made['learning_rate']:g}"
    recipes = {
        "lora": f"LoRA of rank {made['rank']} on all linear layers, learning rate {made['lora_learning_rate']:g}",
        "full": f"full fine-tuning, {rate}",
        "distilled": f"distillation from the dense model, {rate}",
    }
    used = [recipe for kind, recipe in recipes.items() if any(part.startswith(kind) for part in models)]
    told = (
        f"SmolLM2-135M-Instruct without 6 of its 30 blocks: {blocks[0]} (pruned), {blocks[1]} (compensated, chosen "
        f"so on {made['windows']} windows). {made['steps']} steps of {made['batch_size']} rows of {made['length']} "
        f"tokens. Recipes: {'; '.join(used)}. Perplexity of the model as saved, in bfloat16, on {windows[0]} and "
        f'{windows[1]} windows of {made["window_length"]} tokens. "Recovered" is the share of what the cut added to '
        "the perplexity, on WikiText-2 and C4. Zero-shot: the mean of PIQA, WinoGrande, HellaSwag, ARC-easy and "
        f"ARC-challenge, in per cent, on the first {made['limit']} rows. Measured on {made['gpus']} {made['device']} "
        f"with torch {made['torch']}, transformers {made['transformers']}, on {made['date']}; all ran side by side, "
        "and each is faster alone."
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


def log(part: str, what: str) -> None:
    """Tell how far a part is."""
    print(f"{datetime.now(UTC):%H:%M:%S} {part}: {what}", flush=True)


def _percent(score: list[float]) -> str:
    value, error = score
    return f"{100 * value:.1f} ± {100 * error:.1f}"


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


if __name__ == "__main__":
    main()
