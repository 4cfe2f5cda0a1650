"""What a whole `prune` takes on a model of some shape: seconds of each part, and memory beyond the weights.

    python benchmarks/whole_job.py --shape llama-2-7b --windows 32 --num-blocks 7 --preset best
    python benchmarks/whole_job.py --shape llama-2-7b --windows 128 --num-blocks 7 --search auto \
        --recorded tests/search/data/smollm2-losses.safetensors

Weights and tokens are random, so nothing is learnt about quality. A race needs losses that differ as in real models.
So what each block adds to the residual stream is scaled, the middle ones to matter least; or, with `--recorded`, the
race is given the losses that a real model had in its exact search, after it has measured its own.
"""

import argparse
import cProfile
import json
import pstats
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers
from healing import machine
from safetensors.torch import load_file
from shapes import SHAPES, random_model

from optimum_sleb import SearchCallback, SearchControl, SearchState, SLEBConfig, SLEBPruner
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.search.candidate_losses import StepLosses
from optimum_sleb.search.exact import ExactLosses

# Parts of a job, by the function that does them.
PARTS = {
    "checks": "removable_blocks",
    "trying the exact search": "why_not_exact",
    "choosing the batch size": "choose_batch_size",
    "compiling": "compile_for_search",
    "losses of the dense model": "_finite_loss",
    "compensation": "compensate_best",
    "cut and its check": "_take_out",
}


class Clock(SearchCallback):
    """Notes the seconds of each step or depth."""

    def __init__(self) -> None:
        self.steps: list[float] = []

    def on_block_removed(self, config: SLEBConfig, state: SearchState, control: SearchControl) -> None:
        """Note how long it took."""
        self.steps.append(round(state.step_seconds, 2))
        print(json.dumps({"step": state.step, "seconds": self.steps[-1]}), flush=True)


class Recorded:
    """Replaces losses that were measured by those of a real model's exact search, block by block and window by window.
    Blocks that the real model lacks take the losses of one that is never close to going."""

    def __init__(self, file: Path, num_blocks: int, num_windows: int) -> None:
        self.recorded, self.num_blocks, self.num_windows = load_file(file), num_blocks, num_windows
        self.num_steps = sum(name.endswith(".losses") for name in self.recorded)
        self.measure = ExactLosses.measure

    def __call__(
        self, losses: ExactLosses, alive: Sequence[int], candidates: Sequence[int], windows: TokenWindows | None = None
    ) -> StepLosses:
        """Measure, and return the recorded losses instead where a search measures, not a check before it."""
        found = self.measure(losses, alive, candidates, windows)
        if len(losses.windows) != self.num_windows:
            return found
        used = losses.windows if windows is None else windows
        places = [window.data_ptr() for window in losses.windows.windows]
        columns = [places.index(window.data_ptr()) for window in used.windows]
        step = min(self.num_blocks - len(alive), self.num_steps - 1)
        known = self.recorded[f"step{step}.candidates"].tolist()
        rows = {block: known.index(block) if block in known else 0 for block in candidates}
        return StepLosses({block: self.recorded[f"step{step}.losses"][row][columns] for block, row in rows.items()})


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--num-blocks", type=int, default=7)
    parser.add_argument("--preset", choices=("published", "best"), default="published")
    parser.add_argument("--search", choices=("exact", "racing", "auto"), help="Instead of the preset's.")
    parser.add_argument("--criterion", choices=("kl",), help="Instead of the preset's.")
    parser.add_argument("--recorded", type=Path, help="Recorded losses of a greedy exact search.")
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


def seconds_of_parts(profile: cProfile.Profile) -> dict[str, float]:
    """The seconds of each part that ran."""
    of_functions = {name: spent[3] for (_, _, name), spent in pstats.Stats(profile).stats.items()}  # type: ignore[attr-defined]
    return {part: round(of_functions[name], 2) for part, name in PARTS.items() if name in of_functions}


def main() -> None:
    """Prune once, and print what it took."""
    arguments = parse_arguments()
    on_cuda = torch.cuda.is_available()
    torch.manual_seed(0)
    model = random_model(arguments.shape, "cuda" if on_cuda else "cpu", torch.bfloat16 if on_cuda else torch.float32)
    scale_blocks(model)
    if arguments.recorded:
        recorded = Recorded(arguments.recorded, model.config.num_hidden_layers, arguments.windows)
        ExactLosses.measure = lambda losses, *given: recorded(losses, *given)  # type: ignore[method-assign]
    rows = torch.randint(model.config.vocab_size, (arguments.windows, arguments.length)).tolist()
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if on_cuda else 0
    fields: dict[str, Any] = {
        "num_blocks_to_remove": arguments.num_blocks,
        "window_length": arguments.length,
        "max_windows": arguments.windows,
    }
    fields |= {name: getattr(arguments, name) for name in ("search", "criterion") if getattr(arguments, name)}
    config = SLEBConfig.best(**fields) if arguments.preset == "best" else SLEBConfig(**fields)
    pruner, clock, profile, started = SLEBPruner(model), Clock(), cProfile.Profile(), time.perf_counter()
    profile.runcall(pruner.prune, config, calibration=rows, callbacks=[clock])
    seconds, report = time.perf_counter() - started, pruner.report
    search = report.search
    result = {
        "shape": arguments.shape,
        "windows": arguments.windows,
        "window_length": arguments.length,
        "recipe": repr(config),
        "method": search.method,
        "seconds": seconds,
        "steps_seconds": clock.steps,
        "parts_seconds": seconds_of_parts(profile),
        "sets": [depth.num_measured for depth in report.depths],
        "share_of_exact_passes": search.exact_block_passes and search.block_passes / search.exact_block_passes,
        "batch_size": search.batch_size,
        "compilation": search.compilation,
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
