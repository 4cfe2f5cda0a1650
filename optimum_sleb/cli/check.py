"""`optimum-cli sleb check`."""

import json
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path

from optimum.commands.base import BaseOptimumCLICommand

from ..errors import ConfigError, UnsupportedModelError
from .common import add_json_argument, add_loading_arguments, clear_endings, loading_arguments


class CheckCommand(BaseOptimumCLICommand):
    """Command that lists the blocks of a model that can be removed, without calibration text."""

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Declare the arguments."""
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--model", help="Model on the Hub or local folder.")
        what.add_argument(
            "--all-architectures",
            action="store_true",
            help="Try every architecture of the installed transformers as a tiny random model (minutes).",
        )
        parser.add_argument(
            "--output", help="With --all-architectures: file to write the table to (default: print it)."
        )
        parser.add_argument("--jobs", type=int, default=2, help="With --all-architectures: number of processes.")
        add_json_argument(parser)
        add_loading_arguments(parser)

    def run(self) -> None:
        """Run the command; exit with 0 if blocks can be removed, with 1 if none can."""
        with clear_endings("check"):
            if self.args.all_architectures:
                self._check_architectures()
            else:
                self._check_model()

    def _check_model(self) -> None:
        from ..pruner import SLEBPruner

        if self.args.output:
            raise ConfigError("--output belongs to --all-architectures; with --model the result is printed.")
        try:
            result = SLEBPruner.from_pretrained(self.args.model, **loading_arguments(self.args)).check()
        except UnsupportedModelError as error:
            print(json.dumps({"refused": str(error)}) if self.args.json else f"refused: {error}")
            sys.exit(1)
        print(json.dumps(asdict(result), default=str) if self.args.json else result.summary())

    def _check_architectures(self) -> None:
        from tqdm.auto import tqdm

        from ..architectures.matrix import architectures, try_architectures
        from ..architectures.page import render_page

        chosen = architectures()
        verdicts = list(tqdm(try_architectures(chosen, self.args.jobs), total=len(chosen), disable=None))
        text = json.dumps([asdict(verdict) for verdict in verdicts]) if self.args.json else render_page(verdicts)
        if self.args.output:
            Path(self.args.output).write_text(text, encoding="utf-8")
        else:
            print(text)
        if any(verdict.status == "wrong" for verdict in verdicts):
            sys.exit(1)
