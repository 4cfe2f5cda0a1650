"""`optimum-cli sleb remove`."""

from argparse import ArgumentParser

from optimum.commands.base import BaseOptimumCLICommand

from ..errors import ConfigError
from .common import (
    add_loading_arguments,
    add_output_arguments,
    count_from,
    exit_on_known_errors,
    loading_arguments,
    lock_output,
    save_and_print,
)
from .printing import printing


class RemoveCommand(BaseOptimumCLICommand):
    """Command that removes known blocks, without a search."""

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument(
            "--model", help="Model on the Hub or local folder (default with --report: the dense model it began with)."
        )
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument(
            "--blocks", type=count_from(0), nargs="+", help="Numbers of the blocks, counted in the dense model."
        )
        what.add_argument("--report", help="Report (or folder) of an earlier search, whose blocks are removed.")
        parser.add_argument(
            "--num-blocks", type=count_from(1), help="With --report: remove only the first so many of its blocks."
        )
        add_output_arguments(parser)
        add_loading_arguments(parser)

    def run(self) -> None:
        """Run the command."""
        with exit_on_known_errors("remove"), printing(self.args), lock_output(self.args.output, self.args.overwrite):
            args = self.args
            from ..pruner import SLEBPruner
            from ..report.report import PruningReport

            report = PruningReport.load(args.report) if args.report else None
            model = args.model or (report.base_model if report else None)
            if model is None:
                raise ConfigError("Name the model that the blocks are taken from (--model).")
            if report is None and args.num_blocks is not None:
                raise ConfigError("--num-blocks belongs to --report; with --blocks, list the blocks that should go.")
            pruner = SLEBPruner.from_pretrained(model, **loading_arguments(args))
            if report is None:
                pruner.remove(args.blocks)
            else:
                pruner.apply(report, args.num_blocks)
            save_and_print(pruner, args)
