"""`optimum-cli sleb prune`."""

import os
import sys
from argparse import ArgumentParser, Namespace
from contextlib import nullcontext
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from optimum.commands.base import BaseOptimumCLICommand

from ..calibration.check import check_data
from ..config import PRESETS, SLEBConfig
from .amounts import add_amounts
from .common import (
    MODEL_HELP,
    add_hub_arguments,
    add_loading_arguments,
    add_output_arguments,
    check_push,
    exit_on_known_errors,
    exit_on_signals,
    loading_arguments,
    lock_output,
    save_and_print,
)
from .describe import describe
from .options import check_output_options, check_search_options, check_source_options
from .printing import add_printing_arguments, printing, silence

if TYPE_CHECKING:
    from ..runtime.ranks import Ranks

_SENTENCE = """Search for the decoder blocks that matter least, remove them, and save an
ordinary checkpoint with its report and a model card. What must be given:
--model, --output, and one way to say how much goes."""
_EXAMPLES = (
    (
        "The best model without training, of a model on the Hub.",
        "prune --model HuggingFaceTB/SmolLM2-135M --output smaller --sparsity 0.2 --preset best",
    ),
    (
        "A folder, to fit 16 GB with its cache, judged on your own chats.",
        "prune --model ./my-model --output smaller --max-memory 16GB --dataset chats.jsonl --loss labels",
    ),
    (
        "The published procedure; go on where it was interrupted.",
        "prune --model ./my-model --output smaller --num-blocks 6 --dataset wikitext2 --resume",
    ),
)
# Options that are fields of SLEBConfig, by group; types, choices and defaults are the config's.
_CALIBRATION_HELP = {
    "dataset": "wikitext2, c4, a local file, pattern or folder, a data set of the Hub (org/name), or a mixture of "
    "these, joined by +, with weights (c4:0.8+chat.jsonl:0.2) or without",
    "dataset_config": "Config of a data set of the Hub",
    "dataset_split": "Split of a data set of the Hub, or of a saved DatasetDict (default: train)",
    "dataset_revision": "Branch, tag or commit of a data set of the Hub",
    "encoding": "Encoding of local text, JSONL, CSV and TSV files (default: UTF-8)",
    "shuffle_buffer": "Rows among which the next is drawn; 0 keeps the order (default: of the Hub 1000, else 0)",
    "text_column": "Field with the text of a document; chats, completions and input_ids are found",
    "document_separator": "Between documents: eos for the tokenizer's token, or a text (default: a blank line)",
    "num_samples": "Documents drawn from wikitext2 or c4",
    "window_length": "Tokens in a window",
    "max_windows": "Windows used at most",
    "seed": "Seed of the shuffle",
    "loss": "Loss on every token, or on labels: completions, the assistant's turns, or labels beside input_ids",
}
_BARRIER_HELP = {
    "early_barrier": "Blocks at the start that are never removed",
    "latter_barrier": "Blocks at the end that are never removed",
}
_SEARCH_HELP = {
    "criterion": "What is lowered instead of cross-entropy: kl, the divergence from the dense model; or a function, "
    "org.module:function from logits and a batch of windows to a loss of each window, which is imported and run",
    "compensate": "Fit weights anew, verified on windows held back: no; of the block below a gap, after the search or "
    "during it; or every-block, of all blocks above a gap too",
    "search_space": "runs: each depth has its own best set of blocks, and runs of neighbours compete (default: one "
    "block after the other)",
    "beam_width": "Sets of blocks that go on to the next depth (default: 4 with --search-space runs, else 1)",
    "search": "exact shares work between candidates; racing gives up those surely behind; auto races where 32 windows "
    "or more are there; reference is as published",
    "racing_confidence": "Standard errors behind the leader at which a race gives a candidate up",
    "search_dtype": "Precision of the search; auto is the model's own, float32 on a CPU",
    "batch_size": "Windows in one forward pass (default: as many as keep the device busy and fit its memory)",
    "compile": "Whether torch.compile fuses blocks and loss; auto where the search is long enough for that to pay",
}


class PruneCommand(BaseOptimumCLICommand):
    """Command that searches for blocks, removes them and saves the model."""

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Declare the arguments."""
        describe(parser, _SENTENCE, "prune --model MODEL --output DIR --sparsity 0.2 [options]", _EXAMPLES)
        parser.add_argument_group("model").add_argument("--model", required=True, help=MODEL_HELP)
        output = add_output_arguments(parser)
        output.add_argument(
            "--resume", action="store_true", help="Go on from the journal that an interrupted run left in --output."
        )
        add_amounts(parser)
        _add_block_options(parser.add_argument_group("which blocks may go"))
        parser.add_argument_group("preset").add_argument(
            "--preset",
            choices=tuple(PRESETS),
            default="published",
            help="Values of the options that are not given: those of the published procedure, or of the best model "
            f"without training ({_as_options(PRESETS['best'])}) (default: published).",
        )
        group = parser.add_argument_group("calibration data")
        _add_config_options(group, _CALIBRATION_HELP)
        group.add_argument(
            "--published-bos",
            action="store_false",
            default=None,
            dest="bos_per_window",
            help="As published: a BOS token in front of the text only, not of every window.",
        )
        _add_config_options(parser.add_argument_group("search"), _SEARCH_HELP)
        loading = add_loading_arguments(parser)
        loading.add_argument(
            "--offload",
            choices=("auto", "cpu", "no"),
            default="auto",
            help="Keep the blocks in host memory, and bring them to --device one at a time: cpu always, no never, "
            "auto where the model does not fit (default: auto).",
        )
        add_hub_arguments(parser)
        printed = add_printing_arguments(parser)
        printed.add_argument(
            "--report-to",
            nargs="+",
            default=["none"],
            help="Write the search to tensorboard (runs/ in --output), trackio, wandb, or all that are installed.",
        )

    def run(self) -> None:
        """Run the command."""
        with exit_on_known_errors("prune", self.args.output), printing(self.args):
            args = self.args
            config = recipe_from(args)
            check_output_options(args)
            check_source_options(args, args.model)
            check_search_options(args, config)
            is_alone = "RANK" not in os.environ
            if is_alone:  # else the first process does it, and all fail together
                self._check_places()
            check_data(config)  # last of these, because it may ask the Hub
            # Imported late: torch and transformers take seconds, and a bad argument should be reported at once.
            from ..runtime.ranks import Ranks

            ranks = Ranks.from_launcher(cpu=(args.device or "").startswith("cpu"))
            with (
                exit_on_signals("prune", args.output, quiet=not ranks.is_first),
                ranks.fail_together(),
                lock_output(args.output, args.overwrite) if ranks.is_first else nullcontext(),
            ):
                if ranks.is_first and not is_alone:
                    self._check_places()
                self._prune(config, ranks)
            ranks.close()

    def _check_places(self) -> None:
        """Refuse a folder that cannot take the model, a journal that is in the way, and a push that would fail."""
        from ..hub.folder import check_output_folder
        from ..search.journal import check_journal

        check_output_folder(self.args.output, self.args.overwrite, seconds=0)
        check_journal(self.args.output, self.args.resume)
        check_push(self.args)

    def _prune(self, config: SLEBConfig, ranks: "Ranks") -> None:
        from ..blocks.criterion import KL
        from ..models.before_loading import check_before_loading
        from ..models.placement import device_to_load_on
        from ..search.criterion import import_criterion
        from ..search.reporting import services_of

        args = self.args
        if not ranks.is_first:
            silence()  # all processes share one terminal
        if config.criterion not in (None, KL):
            sys.path.append(os.getcwd())  # where it may lie; last, so that no installed module is shadowed
            import_criterion(config.criterion)
        services = services_of(args.report_to)
        arguments = loading_arguments(args)
        device = arguments["device_map"] = ranks.own_device(arguments["device_map"])
        check_before_loading(args.model, config, **arguments)
        load_on = device_to_load_on(args.model, config, args.offload, **arguments)
        arguments["device_map"] = "cpu" if ranks.largest(int(load_on == "cpu")) else load_on
        from ..pruner import SLEBPruner  # the slowest import comes after what can be refused

        pruner = SLEBPruner.from_pretrained(args.model, **arguments)
        pruner.prune(
            config,
            report_to=services,
            progress_dir=args.output,
            resume=args.resume,
            device=None if device == "auto" else device,  # a model spread over several devices stays there
            offload=args.offload,
            ranks=ranks,
        )
        if ranks.is_first:
            save_and_print(pruner, args)


def recipe_from(args: Namespace) -> SLEBConfig:
    """Return the recipe of the options: what was typed, also where it equals the default, then what the preset says.
    An option that is a field of the recipe is `None` where it was not typed."""
    options = {field.name: getattr(args, field.name) for field in fields(SLEBConfig)}
    typed = {name: value for name, value in options.items() if value is not None}
    return SLEBConfig(**{**PRESETS[args.preset], **typed})


def _as_options(recipe: dict[str, Any]) -> str:
    return " ".join(f"{_option(name)} {value}" for name, value in recipe.items())


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _add_block_options(group: Any) -> None:
    group.add_argument(
        "--protected-blocks", nargs="+", metavar="N", help="Blocks that stay, by the dense model's numbers: 0-3 14."
    )
    group.add_argument(
        "--candidate-blocks", nargs="+", metavar="N", help="The only blocks that may go, by its numbers too: 4-13."
    )
    _add_config_options(group, _BARRIER_HELP)


def _add_config_options(group: Any, help_of: dict[str, str]) -> None:
    defaults = {field.name: field.default for field in fields(SLEBConfig)}
    hints = get_type_hints(SLEBConfig)
    for name, text in help_of.items():
        kind, default = _kind_of(hints[name]), defaults[name]
        is_choice = get_origin(kind) is Literal
        group.add_argument(
            _option(name),
            type=str if is_choice else kind,
            choices=get_args(kind) if is_choice else None,
            metavar=None if is_choice else _METAVARS.get(kind, name.rpartition("_")[2].upper()),
            help=f"{text}." if default is None else f"{text} (default: {default}).",
        )


_METAVARS = {int: "N", float: "X"}


def _kind_of(hint: Any) -> Any:
    """Return the type of a field; of `int | None` the other one."""
    others = [kind for kind in get_args(hint) if kind is not type(None)]
    return others[0] if len(others) < len(get_args(hint)) else hint
