"""`optimum-cli sleb ...`. Import nothing heavy here: every `optimum-cli` command imports this module."""

from argparse import ArgumentParser

from optimum.commands.base import BaseOptimumCLICommand, CommandInfo

from .benchmark import BenchmarkCommand
from .check import CheckCommand
from .describe import describe
from .evaluate import EvaluateCommand
from .export import ExportCommand
from .heal import HealCommand
from .prune import PruneCommand
from .push import PushCommand
from .remove import RemoveCommand

__all__ = ["SLEBCommand"]


class SLEBCommand(BaseOptimumCLICommand):
    """Parent of the `sleb` commands; without a subcommand it prints their list, and what to do first."""

    COMMAND = CommandInfo(name="sleb", help="Make causal language models shallower with SLEB.")
    SUBCOMMANDS = (
        CommandInfo("check", "Say which blocks of a model can be removed, before any search.", CheckCommand),
        CommandInfo("prune", "Search for the blocks that matter least and remove them.", PruneCommand),
        CommandInfo("remove", "Remove known blocks, or a shallower cut of an earlier search.", RemoveCommand),
        CommandInfo("heal", "Fine-tune a pruned model, and save it with report and card.", HealCommand),
        CommandInfo("evaluate", "Measure perplexity and accuracy of a model, dense or pruned.", EvaluateCommand),
        CommandInfo("benchmark", "Time a model, and the dense one beside it.", BenchmarkCommand),
        CommandInfo("export", "Write a pruned model, or its blocks, as others' tools take them.", ExportCommand),
        CommandInfo("push", "Upload a pruned model's folder to the Hub, in one commit.", PushCommand),
    )

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Say what to do first."""
        describe(
            parser,
            "Make a causal language model smaller and faster: take whole decoder blocks out of it.",
            "COMMAND [options]   (COMMAND --help shows its options)",
            (
                ("First, in seconds: which blocks of your model may go?", "check --model MODEL"),
                (
                    "Then: without a fifth of its blocks, the best model there is without training.",
                    "prune --model MODEL --output DIR --sparsity 0.2 --preset best",
                ),
                ("What it cost, beside the dense model.", "evaluate --model DIR --baseline MODEL"),
            ),
            title="what to do first",
        )
