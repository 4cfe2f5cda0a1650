"""Models larger than the device, several GPUs, and 70B on one: what a step of the search takes.

    python benchmarks/scale.py offload                     # 13B shape under 16 GB, against the same in 26 GB and more
    torchrun --nproc-per-node 1 benchmarks/scale.py ranks  # 7B shape, a whole job; then the same with 2
    python benchmarks/scale.py resident70b                 # on one device of 141 GB

Weights are random and made on the device; windows are random tokens. Nothing is compiled, so that what is compared is
where the weights lie; the losses of two ways are compared too. Every part is logged when it is done, with its seconds.
"""

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from shapes import SHAPES, random_model
from transformers import PreTrainedModel

from optimum_sleb import SLEBConfig, SLEBPruner
from optimum_sleb.blocks.offload import offloaded
from optimum_sleb.blocks.stack import DecoderStack, find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.runtime.ranks import Ranks
from optimum_sleb.search.batch_size import choose_batch_size, fit_layerwise
from optimum_sleb.search.cost import exact_block_passes
from optimum_sleb.search.exact import ExactLosses
from optimum_sleb.search.layerwise import LayerwiseLosses

DEFAULTS = {"offload": ("llama-2-13b", 8), "ranks": ("llama-2-7b", 64), "resident70b": ("llama-2-70b", 5)}


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=DEFAULTS)
    parser.add_argument(
        "--shape", choices=SHAPES, help="llama-2-13b, llama-2-7b or llama-2-70b unless said otherwise."
    )
    parser.add_argument("--windows", type=int, help="8, 64 or 5 unless said otherwise.")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--batch-size", type=int, help="Windows in one forward pass (default: as a search chooses).")
    parser.add_argument("--limit-gb", type=float, default=16.0, help="With offload: memory that may be used.")
    parser.add_argument(
        "--steps",
        type=int,
        default=1,
        help="Steps to measure; with resident70b the rest of the job is extrapolated.",
    )
    parser.add_argument("--removals", type=int, default=16, help="With resident70b: steps of the whole job.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    shape, windows = DEFAULTS[arguments.what]
    arguments.shape, arguments.windows = arguments.shape or shape, arguments.windows or windows
    return arguments


class Log:
    """Tells what was measured as soon as it is, and keeps it for the file."""

    def __init__(self, quiet: bool = False) -> None:
        self.started = time.perf_counter()
        self.quiet = quiet
        self.values: dict[str, Any] = {}

    def note(self, **values: Any) -> None:
        """Take note of values."""
        self.values |= values
        if not self.quiet:
            told = ", ".join(f"{name} {_short(value)}" for name, value in values.items())
            print(f"[{time.perf_counter() - self.started:6.1f} s] {told}", flush=True)

    def timed(self, name: str, run: Callable[[], Any], device: torch.device) -> Any:
        """Time a call, with all that it started on the device, and note its memory."""
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
        started = time.perf_counter()
        result = run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.note(**{f"{name}_seconds": time.perf_counter() - started})
        if device.type == "cuda":
            self.note(**{f"{name}_peak_gb": torch.cuda.max_memory_allocated(device) / 1e9})
        return result


def _numbered(name: str) -> torch.device:
    """A device with its number, without which its memory cannot be limited."""
    return torch.device("cuda", torch.cuda.current_device()) if name == "cuda" else torch.device(name)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def offload(arguments: argparse.Namespace, log: Log) -> None:
    """One step of a search resident, and block by block under a limit."""
    device = _numbered(arguments.device)
    model, stack, windows = _prepare(arguments, device, log)
    alive, candidates = range(len(stack)), range(1, len(stack) - 1)
    resident = ExactLosses(model, stack, windows, arguments.batch_size or 1)
    resident.batch_size = arguments.batch_size or choose_batch_size(resident, candidates[-1])
    log.note(resident_batch_size=resident.batch_size)
    expected = log.timed("resident", lambda: resident.measure(alive, candidates).matrix, device)
    log.timed("to_host", lambda: to_host(model, stack), device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(arguments.limit_gb * 1e9 / total, device)
    with offloaded(model, stack, device) as there:
        measure = LayerwiseLosses(model, there, windows, len(windows))
        log.timed("fit", lambda: fit_layerwise(measure, candidates[-1], len(candidates)), device)
        measure.windows_at_a_time = min(resident.batch_size, measure.windows_at_a_time)
        log.note(offloaded_batch_size=measure.batch_size, windows_at_a_time=measure.windows_at_a_time)
        few = LayerwiseLosses(model, there, windows.select([0]))
        log.timed("walk_of_one_window", lambda: few.losses_of(alive), device)
        moved = sum(parameter.nbytes for parameter in stack.blocks.parameters())
        log.note(gb_per_walk=moved / 1e9, gb_per_second=moved / 1e9 / log.values["walk_of_one_window_seconds"])
        there.loader.loads = 0
        losses = log.timed("offloaded", lambda: measure.measure(alive, candidates).matrix, device)
        log.note(loads=there.loader.loads)
    _compare(losses, expected, candidates, log)
    log.note(ratio=log.values["offloaded_seconds"] / log.values["resident_seconds"])


def to_host(model: PreTrainedModel, stack: DecoderStack) -> None:
    """Move a model to host memory, several blocks at a time: fresh memory is slow to come by."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda block: block.to("cpu"), stack.blocks))
    model.to("cpu")


def ranks(arguments: argparse.Namespace, log: Log) -> None:
    """A whole job, from the checks to the shorter model, on as many GPUs as processes were started."""
    together = Ranks.from_launcher(cpu=arguments.device == "cpu")
    log.quiet = not together.is_first
    device = torch.device(together.own_device(arguments.device))
    model, _, windows = _prepare(arguments, device, log)
    pruner = SLEBPruner(model)
    recipe = SLEBConfig(
        num_blocks_to_remove=arguments.steps,
        search="exact",
        window_length=arguments.length,
        max_windows=arguments.windows,
        batch_size=arguments.batch_size,
        compile="never",
    )
    log.timed("job", lambda: pruner.prune(recipe, calibration=torch.stack(windows.windows), ranks=together), device)
    report = pruner.report
    log.note(processes=together.size, batch_size=report.search.batch_size, removed=report.removed_blocks)
    log.note(step_seconds=[step.seconds for step in report.steps], loss_before=report.search.loss_before)
    log.values["losses"] = [step.candidate_losses for step in report.steps]
    together.close()


def resident70b(arguments: argparse.Namespace, log: Log) -> None:
    """Steps of a search on a model that just fits, and what the whole job would take."""
    device = _numbered(arguments.device)
    model, stack, windows = _prepare(arguments, device, log)
    alive = list(range(len(stack)))
    measure = ExactLosses(model, stack, windows, arguments.batch_size or 1)
    measure.batch_size = arguments.batch_size or choose_batch_size(measure, len(stack) - 2)
    log.note(batch_size=measure.batch_size)
    passes = seconds = 0.0
    for step in range(arguments.steps):
        candidates = alive[1:-1]
        losses = log.timed(
            f"step_{step}", lambda now=list(alive), tried=candidates: measure.measure(now, tried).matrix, device
        )
        passes += exact_block_passes(alive, candidates)
        seconds += log.values[f"step_{step}_seconds"]
        alive.remove(candidates[int(losses.sum(dim=1).argmin())])
        log.note(milliseconds_per_pass=seconds / passes / len(windows) * 1e3)
    lengths = range(len(stack), len(stack) - arguments.removals, -1)
    whole = sum(exact_block_passes(range(left), range(1, left - 1)) for left in lengths)
    log.note(whole_job_passes=whole, whole_job_minutes=seconds / passes * whole / 60)


def _prepare(arguments: argparse.Namespace, device: torch.device, log: Log) -> tuple[Any, DecoderStack, TokenWindows]:
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = log.timed("weights", lambda: random_model(arguments.shape, str(device), dtype), device)
    ids = torch.randint(3, 32000, (arguments.windows, arguments.length), generator=torch.Generator().manual_seed(0))
    return model, find_decoder_stack(model), TokenWindows(tuple(ids))


def _compare(losses: torch.Tensor, expected: torch.Tensor, candidates: range, log: Log) -> None:
    difference = ((losses - expected).abs() / expected).max().item()
    best = [candidates[int(one.double().sum(dim=1).argmin())] for one in (losses, expected)]
    log.note(largest_relative_difference=difference, identical=bool(losses.equal(expected)), best_blocks=best)


def main() -> None:
    """Run the benchmark."""
    arguments = parse_arguments()
    log = Log()
    if torch.cuda.is_available():
        log.note(device=torch.cuda.get_device_name(), torch=torch.__version__)
    {"offload": offload, "ranks": ranks, "resident70b": resident70b}[arguments.what](arguments, log)
    if arguments.output and not log.quiet:
        settings = {name: str(value) for name, value in vars(arguments).items()}
        arguments.output.write_text(json.dumps({"settings": settings, **log.values}, indent=2) + "\n")


if __name__ == "__main__":
    main()
