"""How time and memory of one step of an exact search grow: with blocks, with windows, with their length.

    python benchmarks/growth.py measure      # on a GPU; writes benchmarks/growth.json
    python benchmarks/growth.py draw         # docs/images/growth.svg

A model of Llama's form with random weights, nothing compiled. One thing varies at a time; the line is what the cost
model (block and head passes, times their arithmetic) makes of the point in the middle of each series.
"""

import argparse
import gc
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from healing import machine
from search_speed import operations, timed
from transformers import LlamaConfig, LlamaForCausalLM

from optimum_sleb import SLEBConfig
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.runtime.ranks import Ranks
from optimum_sleb.search.method import choose_method

ROOT = Path(__file__).parents[1]
RESULTS, PICTURE = ROOT / "benchmarks" / "growth.json", ROOT / "docs" / "images" / "growth.svg"
USUAL = {"blocks": 32, "windows": 4, "length": 2048}
SERIES = {"blocks": (16, 32, 64, 80), "windows": (4, 8, 32, 128), "length": (512, 1024, 2048, 4096, 8192)}
UNITS = {"blocks": "decoder blocks", "windows": "token windows", "length": "tokens in a window"}
# 128 windows of the usual length would take minutes.
LENGTH_OF_MANY_WINDOWS = 512
SHAPE = {"hidden_size": 2048, "intermediate_size": 5632, "num_attention_heads": 16, "vocab_size": 32000}
COLOUR, PALE = "#0072B2", "#8c959f"


def measure_point(blocks: int, windows: int, length: int, device: str) -> dict[str, Any]:
    """Time one step, the second of two, so that nothing is loaded in it for the first time."""
    config = LlamaConfig(num_hidden_layers=blocks, max_position_embeddings=8192, **SHAPE)
    with torch.device(device):
        model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16).eval()
    stack, alive, candidates = find_decoder_stack(model), range(blocks), range(1, blocks - 1)
    ids = TokenWindows(tuple(torch.randint(3, config.vocab_size, (windows, length))))
    recipe = SLEBConfig(num_blocks_to_remove=1, compile="never", max_windows=None)
    method = choose_method(model, stack, ids, candidates, recipe, Ranks.alone())
    method.losses.measure(alive, candidates[:2])
    method.losses.block_passes = method.losses.head_passes = 0
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if device == "cuda" else 0
    seconds, _ = timed(lambda: method.measure(alive, candidates), device)
    peak = (torch.cuda.max_memory_allocated() - before) / 1e9 if device == "cuda" else None
    point = {"blocks": blocks, "windows": windows, "length": length, "seconds": seconds, "gigabytes": peak}
    point |= {"batch_size": method.losses.batch_size, "operations": operations(model, stack, method.losses, length)}
    print(json.dumps(point), flush=True)
    return point


def measure(device: str) -> dict[str, Any]:
    """All series."""
    series: dict[str, list[dict[str, Any]]] = {}
    for name, values in SERIES.items():
        usual = USUAL | ({"length": LENGTH_OF_MANY_WINDOWS} if name == "windows" else {})
        series[name] = []
        for value in values:
            series[name].append(measure_point(**usual | {name: value}, device=device))
            gc.collect()
            torch.cuda.empty_cache()
    return {"series": series, **machine(), "date": datetime.now(UTC).date().isoformat()}


def draw(results: dict[str, Any], file: Path) -> None:
    """Draw seconds, with the cost model's line, and memory, a column for each series."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots(2, len(SERIES), sharex="col", sharey="row")
    for column, (name, points) in enumerate(results["series"].items()):
        values = [point[name] for point in points]
        middle = points[len(points) // 2]
        expected = [point["operations"] * middle["seconds"] / middle["operations"] for point in points]
        seconds, memory = axes[0][column], axes[1][column]
        seconds.plot(values, expected, color=PALE, label="cost model")
        seconds.plot(values, [point["seconds"] for point in points], "o", color=COLOUR, label="measured")
        memory.plot(values, [point["gigabytes"] for point in points], "o-", color=COLOUR)
        memory.set_xlabel(UNITS[name])
        for one in (seconds, memory):
            one.set_xscale("log", base=2)
            one.set_xticks(values, [str(value) for value in values])
            one.grid(alpha=0.3)
        seconds.set_yscale("log")
    axes[0][0].set_ylabel("seconds of a step")
    axes[1][0].set_ylabel("GB beyond the weights")
    axes[0][0].legend()
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    """Measure or draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("measure", "draw"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.command == "measure":
        results = measure("cuda" if torch.cuda.is_available() else "cpu")
        arguments.results.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    else:
        draw(json.loads(arguments.results.read_text(encoding="utf-8")), PICTURE)


if __name__ == "__main__":
    main()
