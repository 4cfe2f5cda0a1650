"""`optimum-cli sleb benchmark`."""

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimum.commands.base import BaseOptimumCLICommand

from .common import (
    MODEL_HELP,
    add_loading_arguments,
    add_update_card_argument,
    count_from,
    exit_on_known_errors,
    load_with_tokenizer,
    loading_arguments,
)
from .describe import describe
from .options import check_benchmark_options, check_source_options
from .printing import add_printing_arguments, printing

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..evaluation.assisted import AssistedGeneration
    from ..evaluation.scenarios import Scenario
    from ..evaluation.speeds import Speed

_SENTENCE = """Time a model: reading one long prompt, and generating for many short ones;
with --baseline in turns with the dense model, on the same machine."""
_EXAMPLES = (
    ("Beside the dense model, and onto the card.", "benchmark --model smaller --baseline ./my-model --update-card"),
    (
        "Generation alone, at two batch sizes.",
        "benchmark --model smaller --baseline ./my-model --scenarios generation --batch-sizes 1 32",
    ),
    ("As the draft model of the dense one.", "benchmark --model smaller --baseline ./my-model --assisted"),
)


class BenchmarkCommand(BaseOptimumCLICommand):
    """Command that times prompts and generation of a model, alternating with a baseline model."""

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Declare the arguments."""
        describe(parser, _SENTENCE, "benchmark --model MODEL --baseline DENSE [options]", _EXAMPLES)
        models = parser.add_argument_group("models")
        models.add_argument("--model", required=True, help=MODEL_HELP)
        models.add_argument("--baseline", metavar="MODEL", help="The model to compare with, such as the dense one.")
        timed = parser.add_argument_group("what is timed")
        timed.add_argument(
            "--scenarios",
            nargs="+",
            choices=["prompt", "generation"],
            default=["prompt", "generation"],
            help="What to time: reading one long prompt, generating for many short ones (default: both).",
        )
        timed.add_argument(
            "--prompt", type=count_from(1), help="Tokens of the long prompt (default: 2048; 256 on a CPU)."
        )
        timed.add_argument(
            "--batch-sizes",
            type=count_from(1),
            nargs="+",
            default=[],
            help="Sequences generated at a time (default: 64; 4 on a CPU).",
        )
        timed.add_argument(
            "--short-prompt", type=count_from(1), help="Tokens before what is generated (default: 64; 32 on a CPU)."
        )
        timed.add_argument("--new-tokens", type=count_from(1), help="Tokens generated (default: 128; 16 on a CPU).")
        timed.add_argument("--static-cache", action="store_true", help="Generate with a cache of fixed size.")
        timed.add_argument("--compile", action="store_true", help="Compile the models with torch.compile.")
        timed.add_argument(
            "--assisted", action="store_true", help="Also try the model as the draft of --baseline for generation."
        )
        timed.add_argument(
            "--repeats", type=count_from(1), help="Repetitions of each (default: 20, generating 5; on a CPU 5, 3)."
        )
        add_loading_arguments(parser)
        results = add_printing_arguments(parser)
        add_update_card_argument(results)
        results.add_argument("--progress", metavar="DIR", help="Keep finished scenarios there, and go on from there.")

    def run(self) -> None:
        """Run the command."""
        with exit_on_known_errors("benchmark"), printing(self.args):
            check_benchmark_options(self.args)
            check_source_options(self.args, self.args.model, self.args.baseline)
            self._time_models()

    def _time_models(self) -> None:
        from ..evaluation.assisted import assisted_generation
        from ..evaluation.benchmark import benchmark
        from ..hub.card_update import add_to_report_and_card
        from ..hub.model_files import check_model_folder
        from ..models.loading import load_model

        args = self.args
        # Checked before anything is measured.
        weights = check_model_folder(Path(args.model)).weights_sha256 if args.update_card else None
        arguments = loading_arguments(args)
        model = load_model(args.model, **arguments)
        baseline, tokenizer = None, None
        if args.assisted:
            baseline, tokenizer = load_with_tokenizer(args.baseline, arguments)
        elif args.baseline:
            baseline = load_model(args.baseline, **arguments)
        scenarios = self._scenarios(model)
        speeds = benchmark(model, baseline, scenarios, repeats=args.repeats, progress_dir=args.progress)
        if args.update_card:
            add_to_report_and_card(args.model, speeds=[speed.record() for speed in speeds], weights_sha256=weights)
        assisted = None
        if baseline is not None and tokenizer is not None:
            new_tokens, repeats = args.new_tokens or 64, args.repeats or 3
            assisted = assisted_generation(model, baseline, tokenizer, new_tokens=new_tokens, repeats=repeats)
        if args.json:
            _print_json(speeds, assisted)
        else:
            _print_tables(speeds, assisted, [Path(name) for name in (args.baseline, args.model) if name])

    def _scenarios(self, model: "PreTrainedModel") -> "list[Scenario]":
        from ..evaluation.scenarios import paper_scenarios

        args, scenarios = self.args, []
        for scenario in paper_scenarios(model, tuple(args.batch_sizes)):
            if scenario.kind not in args.scenarios:
                continue
            changes = {"prompt_length": args.prompt}
            if scenario.kind == "generation":
                changes = {"prompt_length": args.short_prompt, "new_tokens": args.new_tokens}
            given = {name: value for name, value in changes.items() if value is not None}
            static = args.static_cache and scenario.kind == "generation"
            scenarios.append(replace(scenario, **given, static_cache=static, compile=args.compile))
        return scenarios


def _print_json(speeds: "Sequence[Speed]", assisted: "AssistedGeneration | None") -> None:
    values: dict[str, Any] = {
        "speeds": [
            {**asdict(speed), "record": asdict(speed.record()), "speedup": speed.speedup, "ideal": speed.ideal}
            for speed in speeds
        ]
    }
    if assisted is not None:
        values["assisted"] = {**asdict(assisted), "speedup": assisted.speedup}
    print(json.dumps(values, allow_nan=False))


def _print_tables(speeds: "Sequence[Speed]", assisted: "AssistedGeneration | None", models: list[Path]) -> None:
    from ..evaluation.speeds import speed_table
    from ..hub.model_files import size_on_disk

    print(speed_table(speeds))
    sizes = [size_on_disk(model) for model in models]
    if all(sizes):
        print(f"weights on disk, MB: {', '.join(f'{size / 1e6:,.1f}' for size in sizes if size)}")
    for speed in speeds:
        if speed.dense is not None:
            print(speed.explanation())
    if assisted is not None:
        print(assisted.summary())
