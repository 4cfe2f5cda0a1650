"""`optimum-cli sleb check`."""

import json
import sys
from argparse import ArgumentParser
from dataclasses import asdict

from optimum.commands.base import BaseOptimumCLICommand

from ..errors import UnsupportedModelError
from .common import MODEL_HELP, add_loading_arguments, exit_on_known_errors, loading_arguments
from .describe import describe
from .options import check_source_options
from .printing import add_printing_arguments, printing

_SENTENCE = """Say which blocks of a model can be removed, in seconds and without calibration
text. The exit code is 0 if blocks can go, and 1 if none can."""
_EXAMPLES = (
    ("A model on the Hub.", "check --model HuggingFaceTB/SmolLM2-135M"),
    ("A folder, for a program.", "check --model ./my-model --json --quiet"),
    ("A GGUF file.", "check --model ./my-model --gguf-file model.Q4_K_M.gguf"),
)


class CheckCommand(BaseOptimumCLICommand):
    """Command that lists the blocks of a model that can be removed, without calibration text."""

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Declare the arguments."""
        describe(parser, _SENTENCE, "check --model MODEL [options]", _EXAMPLES)
        parser.add_argument_group("model").add_argument("--model", required=True, help=MODEL_HELP)
        add_loading_arguments(parser)
        add_printing_arguments(parser)

    def run(self) -> None:
        """Run the command; exit with 0 if blocks can be removed, with 1 if none can."""
        with exit_on_known_errors("check"), printing(self.args):
            check_source_options(self.args, self.args.model)
            self._check_model()

    def _check_model(self) -> None:
        from ..pruner import SLEBPruner

        try:
            result = SLEBPruner.from_pretrained(self.args.model, **loading_arguments(self.args)).check()
        except UnsupportedModelError as error:
            print(json.dumps({"refused": str(error)}) if self.args.json else f"refused: {error}")
            sys.exit(1)
        print(json.dumps(asdict(result), default=str) if self.args.json else result.summary())
