"""`optimum-cli sleb remove`."""

from argparse import ArgumentParser

from optimum.commands.base import BaseOptimumCLICommand

from ..errors import ConfigError
from .common import (
    MODEL_HELP,
    add_hub_arguments,
    add_loading_arguments,
    add_output_arguments,
    check_push,
    count_from,
    exit_on_known_errors,
    loading_arguments,
    lock_output,
    save_and_print,
)
from .describe import describe
from .options import check_output_options, check_removal_options, check_source_options
from .printing import add_printing_arguments, printing

_SENTENCE = """Remove blocks without a search: those that an earlier search found, or fewer
of them, or those of a list. One search serves every depth up to its own."""
_EXAMPLES = (
    ("A shallower cut of an earlier search.", "remove --report smaller --num-blocks 3 --output larger"),
    ("Known blocks.", "remove --model ./my-model --blocks 14 23 11 --output smaller"),
    (
        "The blocks of a report, from a model that lies elsewhere now.",
        "remove --report sleb_report.json --model ./my-model --output smaller",
    ),
)


class RemoveCommand(BaseOptimumCLICommand):
    """Command that removes known blocks, without a search."""

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Declare the arguments."""
        describe(parser, _SENTENCE, "remove (--report DIR | --model MODEL --blocks N ...) --output DIR", _EXAMPLES)
        model = parser.add_argument_group("model")
        model.add_argument("--model", help=f"{MODEL_HELP} Default with --report: the dense model that it began with.")
        add_output_arguments(parser)
        blocks = parser.add_argument_group("which blocks go")
        what = blocks.add_mutually_exclusive_group(required=True)
        what.add_argument(
            "--blocks",
            type=count_from(0),
            nargs="+",
            metavar="N",
            help="Numbers of the blocks, counted in the dense model.",
        )
        what.add_argument(
            "--report", metavar="DIR", help="Report (or folder) of an earlier search, whose blocks are removed."
        )
        blocks.add_argument(
            "--num-blocks",
            type=count_from(1),
            metavar="N",
            help="With --report: remove only so many, the first of its blocks or its best set of that size.",
        )
        add_loading_arguments(parser)
        add_hub_arguments(parser)
        add_printing_arguments(parser)

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
