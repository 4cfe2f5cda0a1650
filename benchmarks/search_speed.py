"""How fast a search is: reference, exact and racing, on the same weights and windows, in one process.

    python benchmarks/search_speed.py --shape llama-2-7b --windows 8
    python benchmarks/search_speed.py --shape llama-2-7b --windows 5 --removals 7
    python benchmarks/search_speed.py --model .cache/smollm2 --gguf-file SmolLM2-135M-Instruct.Q4_1.gguf \
        --text examples/data/wikitext2-valid-excerpt.txt --windows 4 --length 256

Without `--removals`, the first step of a search is timed: every block between the barriers is a candidate. Methods
take turns, so that drift of the machine meets all of them; medians are printed, and what compiling took stands apart.
With `--removals`, whole searches are timed, from the loaded model to the list of removals, compiling included.

The rate is the arithmetic of the block passes and heads that were run (2 operations for each weight and token, and the
attention scores), against a large matrix product in the same process: one alone, and many in a row, for a device that
draws all the power it may runs slower after a moment.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers
from shapes import SHAPES, random_model
from transformers import PreTrainedModel

from optimum_sleb import SLEBConfig
from optimum_sleb.blocks.stack import DecoderStack, find_decoder_stack
from optimum_sleb.calibration.sources import load_calibration
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.models.loading import load_model, load_tokenizer
from optimum_sleb.runtime.ranks import Ranks
from optimum_sleb.search.candidate_losses import CandidateLosses
from optimum_sleb.search.criterion import choose_criterion
from optimum_sleb.search.method import choose_method
from optimum_sleb.search.result import SearchResult
from optimum_sleb.search.run import open_search


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--shape", choices=SHAPES)
    what.add_argument("--model")
    parser.add_argument("--gguf-file")
    parser.add_argument("--text", help="With --model: text to make the windows of; without, tokens are random.")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument(
        "--reference-windows",
        type=int,
        help="Windows for the reference, whose time is scaled up: it takes one window after the other.",
    )
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--removals", type=int, help="Time whole searches for so many blocks.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="Orders of the windows of a race.")
    parser.add_argument("--criterion", choices=["kl"], help="Of whole searches, instead of cross-entropy.")
    parser.add_argument("--methods", nargs="+", default=["reference", "exact", "racing"])
    parser.add_argument("--compile", choices=["auto", "always", "never"], default="auto")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="bfloat16" if torch.cuda.is_available() else "float32")
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def load(arguments: argparse.Namespace) -> tuple[PreTrainedModel, TokenWindows]:
    """The real model of `--model` or a random one, and its windows."""
    dtype = getattr(torch, arguments.dtype)
    gguf = {"gguf_file": arguments.gguf_file} if arguments.gguf_file else {}
    if arguments.shape:
        model = random_model(arguments.shape, arguments.device, dtype)
    else:
        model = load_model(arguments.model, dtype=dtype, **gguf).to(arguments.device).eval()
    if not arguments.text:
        ids = torch.randint(3, model.config.get_text_config().vocab_size, (arguments.windows, arguments.length))
        return model, TokenWindows(tuple(ids))
    config = SLEBConfig(
        sparsity=0.1, dataset=arguments.text, window_length=arguments.length, max_windows=arguments.windows
    )
    return model, load_calibration(None, load_tokenizer(arguments.model, **gguf), config).windows


def timed(run: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Seconds of a call, with everything that it started on the device, and its result."""
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    result = run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def matrix_rates(device: str, dtype: torch.dtype) -> dict[str, float]:
    """Operations a second in a large matrix product: the fastest of a few alone, and over two seconds."""
    size = 8192 if device == "cuda" else 2048
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    alone = min(timed(lambda: one @ other, device)[0] for _ in range(6))
    products = max(1, int(2 / alone))

    def many() -> None:
        for _ in range(products):
            one @ other

    row, _ = timed(many, device)
    return {"alone": 2 * size**3 / alone, "in a row": 2 * size**3 * products / row}


def operations(model: PreTrainedModel, stack: DecoderStack, measure: CandidateLosses, length: int) -> float:
    """Arithmetic operations of the passes that were counted."""
    weights = sum(parameter.numel() for parameter in stack.blocks[0].parameters() if parameter.dim() > 1)
    width = model.config.get_text_config().hidden_size
    block = 2 * weights + 2 * length * width  # causal attention: half of 4 x length x width for each token
    head = 2 * width * model.config.get_text_config().vocab_size
    return (measure.block_passes * block + measure.head_passes * head) * length


def time_steps(model: PreTrainedModel, windows: TokenWindows, arguments: argparse.Namespace) -> dict[str, Any]:
    """Time the first step of a search by each method."""
    stack = find_decoder_stack(model)
    alive, candidates = range(len(stack)), range(1, len(stack) - 1)
    for_reference = windows.select(range(arguments.reference_windows or len(windows)))
    rates = matrix_rates(arguments.device, model.dtype)
    methods, rows = {}, {}
    for name in arguments.methods:
        config = SLEBConfig(
            num_blocks_to_remove=len(stack) // 5,
            search=name,
            batch_size=arguments.batch_size,
            compile=arguments.compile,
            max_windows=None,
        )
        used = for_reference if name == "reference" else windows
        methods[name] = choose_method(model, stack, used, candidates, config, Ranks.alone())
        compilation = methods[name].compilation
        rows[name] = {"compilation": compilation.summary, "compile_seconds": compilation.seconds, "all_seconds": []}
    for _ in range(arguments.repeats):
        for name, method in methods.items():
            losses, row = method.losses, rows[name]
            losses.block_passes = losses.head_passes = 0
            if arguments.device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
            seconds, _ = timed(lambda method=method: method.measure(alive, candidates), arguments.device)
            row["all_seconds"].append(seconds * len(windows) / len(losses.windows))
            if arguments.device == "cuda":
                row["peak_gb"] = (torch.cuda.max_memory_allocated() - before) / 1e9
            scale = len(windows) / len(losses.windows)
            row["operations"] = operations(model, stack, losses, arguments.length) * scale
            row["block_passes"] = losses.block_passes * scale
            row["batch_size"] = losses.batch_size
    print_steps(rows, rates)
    return {"matrix_rates": rates, "methods": rows}


def print_steps(rows: dict[str, Any], rates: dict[str, float]) -> None:
    """Add what follows from the times to the rows, and print them."""
    print(f"matrix product, TFLOP/s: {', '.join(f'{rate / 1e12:.2f} {how}' for how, rate in rates.items())}")
    print("method       s a step  ratio  TFLOP/s   of a matrix product  passes batch  peak GB  compilation")
    baseline = statistics.median(next(iter(rows.values()))["all_seconds"])
    for name, row in rows.items():
        row["seconds"] = statistics.median(row["all_seconds"])
        row["ratio"] = baseline / row["seconds"]
        row["share_of_matrix_rate"] = {how: row["operations"] / row["seconds"] / rate for how, rate in rates.items()}
        shares = ", ".join(f"{share:.0%} {how}" for how, share in row["share_of_matrix_rate"].items())
        print(
            f"{name:<12}{row['seconds']:>9.2f}{row['ratio']:>7.2f}{row['operations'] / row['seconds'] / 1e12:>9.2f}"
            f"{shares:>22}{row['block_passes']:>8.0f}{row['batch_size']:>6}{row.get('peak_gb', float('nan')):>9.2f}"
            f"  {row['compilation']} ({row['compile_seconds'] or 0:.1f} s)"
        )


def search(
    model: PreTrainedModel, stack: DecoderStack, windows: TokenWindows, candidates: range, config: SLEBConfig
) -> SearchResult:
    """Run a whole search."""
    criterion = choose_criterion(config.criterion, None)
    with open_search(model, stack, windows, candidates, config, criterion, ranks=Ranks.alone()) as opened:
        return list(opened.removals())[-1]


def time_jobs(model: PreTrainedModel, windows: TokenWindows, arguments: argparse.Namespace) -> dict[str, Any]:
    """Time whole searches by each method."""
    stack = find_decoder_stack(model)
    candidates = range(1, len(stack) - 1)
    rows = []
    print(f"{'method':<11}{'seed':>5}{'seconds':>9}{'ratio':>7}{'passes':>9}{'first step':>12}  removed; compilation")
    for name in arguments.methods:
        for seed in arguments.seeds if name == "racing" else [0]:
            config = SLEBConfig(
                num_blocks_to_remove=arguments.removals,
                search=name,
                criterion=arguments.criterion,
                seed=seed,
                batch_size=arguments.batch_size,
                compile=arguments.compile,
            )
            few = name == "reference" and arguments.reference_windows
            used = windows.select(range(arguments.reference_windows)) if few else windows
            run = lambda config=config, used=used: search(model, stack, used, candidates, config)  # noqa: E731
            seconds, result = timed(run, arguments.device)
            scale = len(windows) / len(used)
            row = {
                "method": name,
                "seed": seed,
                "seconds": seconds * scale,
                "step_seconds": [step * scale for step in result.seconds],
                "block_passes": result.record.block_passes * scale,
                "removed": [step.block for step in result.steps],
                "losses": [step.loss for step in result.steps],
                "compilation": result.record.compilation,
                "compile_seconds": result.record.compile_seconds,
                "scaled_from_windows": len(used),
            }
            rows.append(row)
            print(
                f"{name:<11}{seed:>5}{row['seconds']:>9.2f}{rows[0]['seconds'] / row['seconds']:>7.2f}"
                f"{row['block_passes']:>9.0f}{row['step_seconds'][0]:>12.2f}  {row['removed']}; {row['compilation']}"
                f" ({row['compile_seconds'] or 0:.1f} s){' scaled' if few else ''}",
                flush=True,
            )
    return {"jobs": rows}


def main() -> None:
    """Run the benchmark."""
    arguments = parse_arguments()
    model, windows = load(arguments)
    results = (time_jobs if arguments.removals else time_steps)(model, windows, arguments)
    if arguments.output:
        device = torch.cuda.get_device_name() if arguments.device == "cuda" else platform.processor() or "CPU"
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "device": device, "versions": versions}
        settings = {name: str(value) for name, value in vars(arguments).items()}
        arguments.output.write_text(json.dumps({**about, "settings": settings, **results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
