"""What `SLEBConfig.best` takes on a model of some shape: seconds of each part, and memory beyond the weights.

    python benchmarks/best_cost.py --shape llama-2-7b --windows 32 --num-blocks 7

Weights and tokens are random, so nothing is learnt about quality. What each block adds to the residual stream is
scaled so that the middle ones matter least, as in real models; else no candidate could be given up.
"""

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
import transformers
from healing import machine
from shapes import SHAPES, random_model

from optimum_sleb import SearchCallback, SearchControl, SearchState, SLEBConfig, SLEBPruner


class Clock(SearchCallback):
    """Notes the seconds of each depth."""

    def __init__(self) -> None:
        self.depths: list[float] = []

    def on_block_removed(self, config: SLEBConfig, state: SearchState, control: SearchControl) -> None:
        """Note how long the depth took."""
        self.depths.append(round(state.step_seconds, 1))
        print(json.dumps({"depth": state.step, "seconds": self.depths[-1]}), flush=True)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--num-blocks", type=int, default=7)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


@torch.no_grad()
def scale_blocks(model: transformers.PreTrainedModel) -> None:
    """Make what a block adds larger the further it is from the middle, and a little different for each."""
    blocks = model.model.layers
    for number, block in enumerate(blocks):
        distance = abs(number - 0.6 * len(blocks)) / len(blocks)
        factor = 0.3 + 3 * distance**1.5 + 0.01 * (number % 3)
        block.self_attn.o_proj.weight.mul_(factor)
        block.mlp.down_proj.weight.mul_(factor)


def main() -> None:
    """Prune once, and print what it took."""
    arguments = parse_arguments()
    on_cuda = torch.cuda.is_available()
    torch.manual_seed(0)
    model = random_model(arguments.shape, "cuda" if on_cuda else "cpu", torch.bfloat16 if on_cuda else torch.float32)
    scale_blocks(model)
    rows = torch.randint(model.config.vocab_size, (arguments.windows, arguments.length)).tolist()
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if on_cuda else 0
    clock, started = Clock(), time.perf_counter()
    config = SLEBConfig.best(
        num_blocks_to_remove=arguments.num_blocks, window_length=arguments.length, max_windows=arguments.windows
    )
    pruner = SLEBPruner(model)
    pruner.prune(config, calibration=rows, callbacks=[clock])
    report = pruner.report
    result = {
        "shape": arguments.shape,
        "windows": arguments.windows,
        "window_length": arguments.length,
        "seconds": time.perf_counter() - started,
        "depths_seconds": clock.depths,
        "compensation_seconds": report.compensation.seconds,  # of the set that was chosen
        "sets": [len(depth.sets) + depth.num_dropped for depth in report.depths],
        "share_of_exact_passes": report.search.block_passes / report.search.exact_block_passes,
        "compilation": report.search.compilation,
        "removed": report.removed_blocks,
        "gigabytes_beyond_the_weights": (torch.cuda.max_memory_allocated() - before) / 1e9 if on_cuda else None,
        **machine(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
