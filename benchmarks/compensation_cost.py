"""What it takes to compensate the cuts of a model once: seconds, and memory beyond the weights.

    python benchmarks/compensation_cost.py --shape llama-2-7b --windows 32 --removed 4 8 12 16 20 24 28

Weights and tokens are random, so nothing is learnt about quality. Blocks that lie apart are the dearest: every gap is
fitted and verified on its own. A search with `compensate="during"` does this after every removal, for as many gaps as
there are by then.
"""

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
from healing import machine
from shapes import SHAPES, random_model

from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.compensation.compensator import Compensator
from optimum_sleb.runtime.ranks import Ranks


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--windows", type=int, default=32, help="Every third of them is held back to verify on.")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--removed", type=int, nargs="+", required=True)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    """Compensate once, and print what it took."""
    arguments = parse_arguments()
    on_cuda = torch.cuda.is_available()
    device = "cuda" if on_cuda else "cpu"
    torch.manual_seed(0)
    model = random_model(arguments.shape, device, torch.bfloat16 if on_cuda else torch.float32)
    ids = torch.randint(model.config.vocab_size, (arguments.windows * arguments.length,))
    windows = TokenWindows.from_stream(ids, arguments.length)
    stack = find_decoder_stack(model)
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if on_cuda else 0
    started = time.perf_counter()
    with Compensator(model, stack, windows, model.dtype, Ranks.alone(), arguments.batch_size) as compensator:
        record = compensator.fit(arguments.removed)
    if on_cuda:
        torch.cuda.synchronize()
    result = {
        "shape": arguments.shape,
        "windows": arguments.windows,
        "window_length": arguments.length,
        "cuts": len(record.cuts),
        "tried": sum(len(cut.tried) for cut in record.cuts),
        "seconds": time.perf_counter() - started,
        "gigabytes_beyond_the_weights": (torch.cuda.max_memory_allocated() - before) / 1e9 if on_cuda else None,
        **machine(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
