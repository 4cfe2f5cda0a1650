"""`optimum-cli sleb heal`."""

import json
import sys
from argparse import ArgumentParser
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from optimum.commands.base import BaseOptimumCLICommand

from ..calibration.check import check_data
from ..config import SLEBConfig
from ..errors import ConfigError
from .common import (
    add_loading_arguments,
    add_output_arguments,
    count_from,
    exit_on_known_errors,
    exit_on_signals,
    load_with_tokenizer,
    loading_arguments,
    lock_output,
)
from .describe import describe
from .options import check_source_options
from .printing import add_printing_arguments, printing

# How the data are read: fields of SLEBConfig.
_READING_HELP = {
    "dataset_config": "Config of a data set of the Hub.",
    "dataset_split": "Split of a data set of the Hub, or of a saved DatasetDict (default: train).",
    "dataset_revision": "Branch, tag or commit of a data set of the Hub.",
    "encoding": "Encoding of local text, JSONL, CSV and TSV files (default: UTF-8).",
    "text_column": "Field with the text of a document; chats, completions and input_ids are found.",
    "document_separator": "Between documents: eos for the tokenizer's token, or a text (default: a blank line).",
}
# Numbers that go to `heal` by their names, with the least that they can be.
_COUNTS = {
    "batch_size": (1, "Rows in a step (default: 16)."),
    "per_device_train_batch_size": (1, "Rows in one pass, at most (default: by the size of the model)."),
    "window_length": (2, "Tokens in a row (default: 512)."),
    "rank": (1, "Rank of the adapter (default: 64 of lora; distill trains all weights without)."),
    "teacher_top_k": (1, "With --cache-teacher: likeliest tokens that are kept of each prediction (default: 64)."),
    "self_data": (1, "Heal on so many answers of the teacher, to prompts from --dataset or to none."),
    "save_steps": (1, "Steps between two checkpoints (default: a tenth of all)."),
    "seed": (0, "Seed of the order of rows, of adapters and of answers (default: 0)."),
}

_SENTENCE = """Fine-tune a pruned model, and save it with its report and card, the pruned and
the healed model side by side
(in a clone: pip install ".[heal]")."""
_EXAMPLES = (
    ("LoRA on your own text, the first thing to try.", "heal --model smaller --output healed --dataset my_text.jsonl"),
    (
        "For ten minutes, all weights, on a mixture.",
        "heal --model smaller --output healed --method full --dataset c4:0.8+chat.jsonl:0.2 --minutes 10",
    ),
    (
        "From the dense model, which writes the text itself.",
        "heal --model smaller --output healed --method distill --teacher ./my-model --self-data 2400",
    ),
)


class HealCommand(BaseOptimumCLICommand):
    """Command that fine-tunes a pruned model and saves it with report and card."""

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Declare the arguments."""
        describe(parser, _SENTENCE, "heal --model DIR --output DIR --dataset DATA [options]", _EXAMPLES)
        model = parser.add_argument_group("model")
        model.add_argument("--model", required=True, help="The pruned model, on the Hub or a local folder.")
        output = add_output_arguments(parser)
        parser.add_argument_group("method").add_argument(
            "--method",
            choices=("lora", "full", "distill"),
            default="lora",
            help="An adapter that is merged, all weights, or all weights by what --teacher predicts (default: lora).",
        )
        reading = parser.add_argument_group("data")
        reading.add_argument(
            "--dataset",
            help="wikitext2, c4, a local file, pattern or folder, a data set of the Hub (org/name), or a mixture of "
            "these, joined by +, with weights (c4:0.8+chat.jsonl:0.2) or without.",
        )
        for name, text in _READING_HELP.items():
            reading.add_argument(f"--{name.replace('_', '-')}", help=text)
        budget = parser.add_argument_group("how long (one of these)").add_mutually_exclusive_group()
        budget.add_argument("--steps", type=count_from(1), help="Steps of the optimizer (default: 150).")
        budget.add_argument("--tokens", type=count_from(1), help="Tokens to train on.")
        budget.add_argument("--minutes", type=float, help="Minutes to train for.")
        teacher = parser.add_argument_group("teacher")
        teacher.add_argument("--teacher", metavar="MODEL", help="The dense model, for distill and --self-data.")
        teacher.add_argument(
            "--teacher-device", metavar="DEVICE", help="Device to load the teacher on (default: that of the model)."
        )
        teacher.add_argument(
            "--cache-teacher",
            metavar="DIR",
            help="Write what the teacher predicts there first, or read it from there.",
        )
        _add_training_options(parser.add_argument_group("training"))
        _add_run_options(output)
        add_loading_arguments(parser)
        printed = add_printing_arguments(parser)
        printed.add_argument(
            "--report-to", nargs="+", default=["none"], help="Services that the Trainer reports to: tensorboard, ..."
        )

    def run(self) -> None:
        """Run the command."""
        args = self.args
        with exit_on_known_errors("heal"), printing(args):
            check_source_options(args, args.model)
            reading = {name: getattr(args, name) for name in _READING_HELP if getattr(args, name) is not None}
            self._check(reading)
            folder = Path(args.run_dir or f"{args.output.rstrip('/')}-run")
            state = f"what was trained up to the last checkpoint is in {folder}; repeat the command with --resume"
            with (
                exit_on_signals("heal", args.output, state=f"{state} to go on."),
                lock_output(args.output, args.overwrite),
            ):
                self._heal(folder, reading)

    def _check(self, reading: dict[str, Any]) -> None:
        """Refuse what cannot be, before torch is imported."""
        args = self.args
        needs_teacher = args.method == "distill" or args.self_data is not None
        if needs_teacher and args.teacher is None:
            owner = "--method distill" if args.method == "distill" else "--self-data"
            raise ConfigError(f"{owner} learns from the dense model; name it (--teacher).")
        if args.dataset is None and args.self_data is None:
            raise ConfigError("Name what to heal on (--dataset), or let the dense model write it (--self-data).")
        if args.dataset is None and reading:
            raise ConfigError(
                f"--{next(iter(reading)).replace('_', '-')} belongs to --dataset; add that, or leave it out."
            )
        if args.dataset is not None:
            check_data(SLEBConfig(num_blocks_to_remove=1, dataset=args.dataset, **reading))

    def _heal(self, folder: Path, reading: dict[str, Any]) -> None:
        args, arguments = self.args, loading_arguments(self.args)
        from ..hub.healed import parent_report, save_healed
        from ..models.loading import load_processing_class

        source = {"revision": args.revision} if args.revision else {}
        parent_report(args.model, source)  # a model without one could not be saved
        processing = load_processing_class(args.model, **arguments) if args.trust_remote_code else None
        from ..healing.checkpoints import remove_checkpoints
        from ..healing.heal import heal

        names = ("teacher", "teacher_device", "cache_teacher", "steps", "tokens", "minutes", "learning_rate", *_COUNTS)
        given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
        recomputes: dict[str, Any] = {"gradient_checkpointing": True} if args.gradient_checkpointing else {}
        model, tokenizer = load_with_tokenizer(args.model, arguments)
        with redirect_stdout(StringIO() if args.quiet else sys.stderr):  # where the Trainer writes its log
            heal(
                model,
                tokenizer,
                args.method,
                data=args.dataset,
                loss=args.loss,
                packing=not args.no_packing,
                output_dir=folder,
                resume=args.resume,
                report_to=args.report_to,
                disable_tqdm=args.quiet or not sys.stderr.isatty(),
                **given,
                **recomputes,
                **reading,
            )
        how = {"tokenizer": processing, "overwrite": args.overwrite, **source}
        report = save_healed(model, args.output, parent=args.model, **how)
        remove_checkpoints(folder)
        if args.json:
            print(json.dumps({"folder": args.output, "report": report.to_dict()}, allow_nan=False))
        else:
            print(f"{report.summary()}\nsaved to {args.output}")


def _add_training_options(training: Any) -> None:
    for name, (least, text) in _COUNTS.items():
        training.add_argument(f"--{name.replace('_', '-')}", type=count_from(least), metavar="N", help=text)
    training.add_argument("--learning-rate", type=float, help="Its highest value (default: by method and size).")
    training.add_argument(
        "--loss",
        choices=("auto", "labels", "next_token"),
        default="auto",
        help="Loss on labels where there are any, on labels alone, or on every token (default: auto).",
    )
    training.add_argument("--no-packing", action="store_true", help="Pad short rows instead of packing them.")
    training.add_argument(
        "--gradient-checkpointing", action="store_true", help="Compute activations again instead of keeping them."
    )


def _add_run_options(output: Any) -> None:
    output.add_argument(
        "--run-dir",
        metavar="DIR",
        help="Folder for checkpoints, logs, adapters and data of its own (default: OUTPUT-run).",
    )
    output.add_argument(
        "--resume", action="store_true", help="Go on from the last checkpoint that an interrupted run left."
    )
