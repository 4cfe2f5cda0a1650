"""The options that say how much goes."""

from argparse import ArgumentParser

from .common import count_from


def add_amounts(parser: ArgumentParser) -> None:
    """Add the options of which exactly one is given, and what belongs to the targets among them."""
    group = parser.add_argument_group("how much goes (one of the first six)")
    amount = group.add_mutually_exclusive_group(required=True)
    amount.add_argument("--sparsity", type=float, help="Share of the blocks to remove, such as 0.2.")
    amount.add_argument(
        "--num-blocks", type=int, dest="num_blocks_to_remove", metavar="N", help="Number of blocks to remove."
    )
    amount.add_argument(
        "--max-perplexity-increase",
        type=float,
        metavar="SHARE",
        help="Remove blocks until the perplexity on the calibration text would grow by more than this share.",
    )
    amount.add_argument(
        "--max-parameters", metavar="N", help="Remove blocks until so many parameters are left: 6B, 113M."
    )
    amount.add_argument(
        "--max-memory",
        metavar="BYTES",
        help="Remove blocks until weights and cache take at most so many bytes: 16GB, 16GiB.",
    )
    amount.add_argument(
        "--min-speedup", type=float, metavar="X", help="Remove blocks until the model is so many times as fast."
    )
    group.add_argument(
        "--context",
        "--context-length",
        type=count_from(1),
        dest="context_length",
        metavar="N",
        help="With --max-memory: tokens of each sequence in the cache (default: 2048, or the model's positions).",
    )
    group.add_argument(
        "--batch",
        "--num-sequences",
        type=count_from(1),
        dest="num_sequences",
        metavar="N",
        help="With --max-memory: sequences in the cache (default: 1).",
    )
    group.add_argument(
        "--speedup-of",
        choices=("prompt", "generation"),
        help="With --min-speedup: what gets faster, reading a prompt or generation (default: generation).",
    )
