"""`optimum-cli sleb evaluate`."""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path

from optimum.commands.base import BaseOptimumCLICommand

from .common import add_json_argument, add_loading_arguments, clear_endings, loading_arguments


class EvaluateCommand(BaseOptimumCLICommand):
    """Perplexity of a model, and of the dense model beside it."""

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Declare the arguments.

        Args:
            parser: The command's parser.
        """
        parser.add_argument("--model", required=True, help="Model on the Hub or local folder.")
        parser.add_argument("--baseline", help="A second model to compare with, such as the dense one.")
        parser.add_argument(
            "--tasks",
            nargs="+",
            default=["wikitext2"],
            help="Texts to measure perplexity on: wikitext2, c4, or local files (default: wikitext2).",
        )
        parser.add_argument("--text-column", default="text", help="Field with the text of a document in a local file.")
        parser.add_argument("--window-length", type=int, default=2048, help="Tokens in a window (default: 2048).")
        parser.add_argument("--max-windows", type=int, help="Windows used at most (default: all; of c4, 256).")
        parser.add_argument(
            "--published-bos",
            action="store_true",
            help="As published: a BOS token in front of the text only, not of every window.",
        )
        parser.add_argument("--batch-size", type=int, default=1, help="Windows in one forward pass (default: 1).")
        parser.add_argument(
            "--record",
            action="store_true",
            help="Write the results into report and card of --model, a folder that prune or remove wrote.",
        )
        add_json_argument(parser)
        add_loading_arguments(parser)

    def run(self) -> None:
        """Run the command."""
        with clear_endings("evaluate"):
            from ..evaluation.perplexity import perplexity
            from ..hub.evaluations import perplexity_record, record_evaluations
            from ..hub.records import check_records
            from ..loading import load_model, load_tokenizer

            args = self.args
            if args.record:
                check_records(Path(args.model))  # before anything is measured
            arguments = loading_arguments(args)
            results = {}
            for name in dict.fromkeys([args.model, *([args.baseline] if args.baseline else [])]):
                model, tokenizer = load_model(name, **arguments), load_tokenizer(name, **arguments)
                results[name] = [
                    perplexity(
                        model,
                        tokenizer,
                        task,
                        window_length=args.window_length,
                        max_windows=args.max_windows,
                        bos_per_window=not args.published_bos,
                        text_column=args.text_column,
                        batch_size=args.batch_size,
                    )
                    for task in args.tasks
                ]
            if args.record:
                dense = results[args.baseline] if args.baseline else [None] * len(args.tasks)
                pairs = zip(results[args.model], dense, strict=True)
                record_evaluations(args.model, [perplexity_record(*pair) for pair in pairs])
        if args.json:
            print(json.dumps({name: [asdict(result) for result in row] for name, row in results.items()}))
            return
        for number, task in enumerate(args.tasks):
            for name, row in results.items():
                print(f"{task}: perplexity {row[number].perplexity:.2f} ({name}, {row[number].num_windows} windows)")
