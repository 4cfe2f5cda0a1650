"""`optimum-cli sleb prune`."""

from argparse import ArgumentParser
from dataclasses import fields
from pathlib import Path

from optimum.commands.base import BaseOptimumCLICommand

from ..config import SLEBConfig
from .common import add_loading_arguments, add_output_arguments, clear_endings, loading_arguments, save_and_print


class PruneCommand(BaseOptimumCLICommand):
    """Search, remove, save."""

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Declare the arguments.

        Args:
            parser: The command's parser.
        """
        defaults = {field.name: field.default for field in fields(SLEBConfig)}
        parser.add_argument("--model", required=True, help="Model on the Hub or local folder.")
        add_output_arguments(parser)
        amount = parser.add_mutually_exclusive_group(required=True)
        amount.add_argument("--sparsity", type=float, help="Share of the blocks to remove, such as 0.2.")
        amount.add_argument("--num-blocks", type=int, help="Number of blocks to remove.")
        amount.add_argument(
            "--max-perplexity-increase",
            type=float,
            help="Remove blocks until the perplexity on the calibration text would grow by more than this share.",
        )
        group = parser.add_argument_group("calibration")
        group.add_argument(
            "--dataset",
            default=defaults["dataset"],
            help="wikitext2, c4, or a local .txt, .jsonl or .parquet file (default: %(default)s).",
        )
        group.add_argument("--text-column", default=defaults["text_column"], help="Field with the text of a document.")
        group.add_argument(
            "--num-samples",
            type=int,
            default=defaults["num_samples"],
            help="Documents drawn from wikitext2 or c4 (default: %(default)s, as published).",
        )
        group.add_argument(
            "--window-length", type=int, default=defaults["window_length"], help="Tokens in a window (default: %(default)s)."
        )
        group.add_argument(
            "--max-windows", type=int, default=defaults["max_windows"], help="Windows used at most (default: %(default)s)."
        )
        group.add_argument(
            "--published-bos",
            action="store_true",
            help="As published: a BOS token in front of the text only, not of every window.",
        )
        group.add_argument("--seed", type=int, default=defaults["seed"], help="Seed of the shuffle of wikitext2 or c4.")
        group = parser.add_argument_group("search")
        group.add_argument(
            "--early-barrier",
            type=int,
            default=defaults["early_barrier"],
            help="Blocks at the start that are never removed (default: %(default)s).",
        )
        group.add_argument(
            "--latter-barrier",
            type=int,
            default=defaults["latter_barrier"],
            help="Blocks at the end that are never removed (default: %(default)s).",
        )
        group.add_argument(
            "--search",
            choices=("exact", "reference"),
            default=defaults["search"],
            help="exact shares work between candidates; reference is the published loop, with the same result.",
        )
        group.add_argument(
            "--search-dtype",
            choices=("auto", "float32", "model"),
            default=defaults["search_dtype"],
            help="Precision of the search (default: the model's own; float32 on a CPU).",
        )
        group.add_argument(
            "--batch-size", type=int, default=defaults["batch_size"], help="Windows in one forward pass (default: %(default)s)."
        )
        add_loading_arguments(parser)

    def run(self) -> None:
        """Run the command."""
        with clear_endings("prune"):
            args = self.args
            config = SLEBConfig(
                sparsity=args.sparsity,
                num_blocks_to_remove=args.num_blocks,
                max_perplexity_increase=args.max_perplexity_increase,
                dataset=args.dataset,
                text_column=args.text_column,
                num_samples=args.num_samples,
                window_length=args.window_length,
                max_windows=args.max_windows,
                bos_per_window=not args.published_bos,
                seed=args.seed,
                early_barrier=args.early_barrier,
                latter_barrier=args.latter_barrier,
                search=args.search,
                search_dtype=args.search_dtype,
                batch_size=args.batch_size,
            )
            # Imported late: torch and transformers take seconds, and a bad argument should be told at once.
            from ..hub.folder import check_output_folder
            from ..pruner import SLEBPruner

            check_output_folder(Path(args.output), args.overwrite)
            pruner = SLEBPruner.from_pretrained(args.model, **loading_arguments(args))
            pruner.prune(config)
            save_and_print(pruner, args)
