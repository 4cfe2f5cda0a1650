"""`optimum-cli sleb ...`. Import nothing heavy here: every `optimum-cli` command imports this module."""

from optimum.commands.base import BaseOptimumCLICommand, CommandInfo

from .benchmark import BenchmarkCommand
from .check import CheckCommand
from .evaluate import EvaluateCommand
from .export import ExportCommand
from .heal import HealCommand
from .prune import PruneCommand
from .push import PushCommand
from .remove import RemoveCommand

__all__ = ["SLEBCommand"]


class SLEBCommand(BaseOptimumCLICommand):
    """Parent of the `sleb` commands; without a subcommand it prints their list."""

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
