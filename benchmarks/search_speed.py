"""How fast a step of the search is: reference, exact and racing, on the same weights and windows, in one process.

    python benchmarks/search_speed.py --shape llama-2-7b --windows 8 --device cuda --dtype bfloat16
    python benchmarks/search_speed.py --model .cache/smollm2 --gguf-file SmolLM2-135M-Instruct.Q4_1.gguf \
        --windows 4 --length 256

A step is the first of a search: every block between the barriers is a candidate. Methods take turns, so that drift of
the machine meets all of them; medians are printed. The rate is the arithmetic of the block passes and heads that were
run (2 operations for each weight and token, and the attention scores), against a large matrix product measured in the
same process.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from optimum_sleb.blocks.stack import DecoderStack, find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.loading import load_model
from optimum_sleb.search.exact import ExactLosses
from optimum_sleb.search.measurement import Measurement
from optimum_sleb.search.racing import Race
from optimum_sleb.search.reference import ReferenceLosses

_LLAMA_2 = {"model_type": "llama", "vocab_size": 32000}
SHAPES: dict[str, dict[str, object]] = {
    "llama-2-7b": _LLAMA_2
    | {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "llama-2-13b": _LLAMA_2
    | {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
    "llama-3-8b": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "opt-6.7b": {
        "model_type": "opt",
        "hidden_size": 4096,
        "word_embed_proj_dim": 4096,
        "ffn_dim": 16384,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "qwen2.5-7b": {
        "model_type": "qwen2",
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
    "smollm2-135m": {
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
}


def load(arguments: argparse.Namespace) -> PreTrainedModel:
    """The real model of `--model`, or one of random weights in a named shape."""
    dtype = getattr(torch, arguments.dtype)
    if arguments.model:
        gguf = {"gguf_file": arguments.gguf_file} if arguments.gguf_file else {}
        return load_model(arguments.model, dtype=dtype, **gguf).to(arguments.device).eval()
    shape = dict(SHAPES[arguments.shape])
    config = AutoConfig.for_model(shape.pop("model_type"), **shape)
    with torch.device(arguments.device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def operations(model: PreTrainedModel, stack: DecoderStack, measure: Measurement, length: int, batch: int) -> float:
    """Arithmetic operations of the passes that were counted."""
    weights = sum(parameter.numel() for parameter in stack.blocks[0].parameters() if parameter.dim() > 1)
    width = model.config.get_text_config().hidden_size
    block = 2 * weights + 2 * length * width  # causal attention: half of 4 x length x width for each token
    head = 2 * width * model.config.get_text_config().vocab_size
    return (measure.block_passes * block + measure.head_passes * head) * length * batch


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """Operations a second in a large matrix product."""
    size = 8192 if device == "cuda" else 2048
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = [timed(lambda: one @ other, device) for _ in range(6)]
    return 2 * size**3 / min(seconds)


def timed(run: Callable[[], object], device: str) -> float:
    """Seconds of a call, with everything that it started on the device."""
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--shape", choices=SHAPES)
    what.add_argument("--model")
    parser.add_argument("--gguf-file")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=["reference", "exact", "racing"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()

    model = load(arguments)
    stack = find_decoder_stack(model)
    ids = torch.randint(3, model.config.get_text_config().vocab_size, (arguments.windows, arguments.length))
    windows = TokenWindows(tuple(ids))
    alive, candidates = range(len(stack)), range(1, len(stack) - 1)
    rate = matrix_rate(arguments.device, model.dtype)
    seconds: dict[str, list[float]] = {method: [] for method in arguments.methods}
    rows: dict[str, dict[str, float]] = {}
    for _ in range(arguments.repeats):
        for method in arguments.methods:
            kind = ReferenceLosses if method == "reference" else ExactLosses
            measure = kind(model, stack, windows, arguments.batch_size)
            step = Race(measure, confidence=5.0, seed=0).step if method == "racing" else measure.step
            if arguments.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
                weights = torch.cuda.memory_allocated()
            seconds[method].append(timed(lambda step=step: step(alive, candidates), arguments.device))
            rows[method] = {
                "block_passes": measure.block_passes,
                "operations": operations(model, stack, measure, arguments.length, measure.batch_size),
            }
            if arguments.device == "cuda":
                rows[method]["peak_gb"] = (torch.cuda.max_memory_allocated() - weights) / 1e9
    baseline = statistics.median(seconds[arguments.methods[0]])
    print(f"{'method':<12}{'s a step':>10}{'ratio':>8}{'TFLOP/s':>10}{'of matmul':>11}{'passes':>9}{'peak GB':>9}")
    for method, row in rows.items():
        row["seconds"] = statistics.median(seconds[method])
        row["ratio"] = baseline / row["seconds"]
        row["share_of_matrix_rate"] = row["operations"] / row["seconds"] / rate
        print(
            f"{method:<12}{row['seconds']:>10.2f}{row['ratio']:>8.2f}"
            f"{row['operations'] / row['seconds'] / 1e12:>10.2f}"
            f"{row['share_of_matrix_rate']:>11.0%}{row['block_passes']:>9.0f}{row.get('peak_gb', float('nan')):>9.2f}"
        )
    if arguments.output:
        device = torch.cuda.get_device_name() if arguments.device == "cuda" else platform.processor() or "CPU"
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "device": device, "versions": versions}
        settings = {name: str(value) for name, value in vars(arguments).items()}
        arguments.output.write_text(json.dumps({**about, "settings": settings, "methods": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
