"""`optimum-cli sleb remove`."""

from argparse import ArgumentParser

from optimum.commands.base import BaseOptimumCLICommand

from ..errors import ConfigError
from .common import (
    add_loading_arguments,
    add_output_arguments,
    check_push,
    count_from,
    exit_on_known_errors,
    loading_arguments,
    lock_output,
    save_and_print,
)
from .options import check_output_options, check_removal_options, check_source_options
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
            "--num-blocks",
            type=count_from(1),
            help="With --report: remove only so many, the first of its blocks or its best set of that size.",
        )
        add_output_arguments(parser)
        add_loading_arguments(parser)

    def run(self) -> None:
        """Run the command."""
        with exit_on_known_errors("remove"), printing(self.args):
            args = self.args
            check_removal_options(args)
            check_output_options(args)
            check_source_options(args, args.model)
            with lock_output(args.output, args.overwrite):
                check_push(args)
                self._remove()

    def _remove(self) -> None:
        args = self.args
        if args.report is not None:
            from ..report.stored import report_file

            report_file(args.report)  # before torch is imported, which a report needs
        from ..models.before_loading import check_blocks_before_loading, check_report_before_loading
        from ..report.report import PruningReport

        report = None if args.report is None else PruningReport.load(args.report)
        model = args.model or (report.base_model if report else None)
        if model is None:
            raise ConfigError("Name the model that the blocks are taken from (--model).")
        check_source_options(args, model)
        arguments = loading_arguments(args)
        if report is None:
            check_blocks_before_loading(model, args.blocks, **arguments)
        else:
            report = report if args.num_blocks is None else report.cut(args.num_blocks)
            check_report_before_loading(model, report, **arguments)
        from ..pruner import SLEBPruner  # the slowest import comes after what can be refused

        pruner = SLEBPruner.from_pretrained(model, **arguments)
        if report is None:
            pruner.remove(args.blocks)
        else:
            pruner.apply(report)
        save_and_print(pruner, args)
