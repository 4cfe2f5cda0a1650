"""`optimum-cli sleb evaluate`."""

import json
import os
from argparse import ArgumentParser
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimum.commands.base import BaseOptimumCLICommand

from ..errors import ConfigError
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
from .options import check_source_options
from .printing import add_printing_arguments, printing

if TYPE_CHECKING:
    from ..evaluation.scores import Score


_READING_HELP = {
    "dataset_config": "Config of a data set of the Hub.",
    "dataset_split": "Split of a data set of the Hub, or of a saved DatasetDict (default: test).",
    "dataset_revision": "Branch, tag or commit of a data set of the Hub.",
    "encoding": "Encoding of local text, JSONL, CSV and TSV files (default: UTF-8).",
}

_SENTENCE = """Measure the perplexity of a model, dense or pruned, by the paper's protocol,
and its accuracy on any task of lm-evaluation-harness
(in a clone: pip install ".[eval]")."""
_EXAMPLES = (
    (
        "Perplexity beside the dense model's, and onto the card.",
        "evaluate --model smaller --baseline ./my-model --tasks wikitext2 my_text.txt --update-card",
    ),
    ("The paper's two texts and five tasks, in part.", "evaluate --model smaller --tasks paper --limit 200"),
    ("Every depth of one search, as a picture.", "evaluate --report smaller --curve --output curve.png"),
)


class EvaluateCommand(BaseOptimumCLICommand):
    """Command that measures perplexity and zero-shot accuracy of a model and of a baseline model."""

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Declare the arguments."""
        describe(parser, _SENTENCE, "evaluate --model MODEL --baseline DENSE --tasks TASK ... [options]", _EXAMPLES)
        models = parser.add_argument_group("models")
        models.add_argument("--model", help=f"{MODEL_HELP} Default with --report: the dense model that it began with.")
        models.add_argument(
            "--baseline", metavar="MODEL", help="A second model to compare with, such as the dense one."
        )
        tasks = parser.add_argument_group("tasks")
        tasks.add_argument(
            "--tasks",
            nargs="+",
            default=["wikitext2"],
            help="Texts to measure perplexity on (wikitext2, c4, local files, org/name of the Hub), tasks of "
            "lm-evaluation-harness, or paper: both texts, piqa, winogrande, hellaswag, arc_easy, arc_challenge "
            "(default: wikitext2).",
        )
        tasks.add_argument(
            "--limit", type=count_from(1), help="Examples of each task of the harness, at most (default: all)."
        )
        tasks.add_argument("--data-dir", help="Folder that holds the data as files (default: they are on the Hub).")
        texts = parser.add_argument_group("texts for perplexity")
        texts.add_argument("--text-column", default="text", help="Field with the text of a document.")
        for name, text in _READING_HELP.items():
            texts.add_argument(f"--{name.replace('_', '-')}", help=text)
        texts.add_argument(
            "--window-length", type=count_from(2), default=2048, help="Tokens in a window (default: 2048)."
        )
        texts.add_argument(
            "--max-windows", type=count_from(1), help="Windows used at most (default: all; of c4, 256)."
        )
        texts.add_argument(
            "--published-bos",
            action="store_true",
            help="As published: a BOS token in front of the text only, not of every window.",
        )
        curve = parser.add_argument_group("every depth of a search")
        curve.add_argument("--report", metavar="DIR", help="With --curve: report (or folder) of a search.")
        curve.add_argument(
            "--curve",
            action="store_true",
            help="Measure every depth of the search of --report, and draw perplexity and speed.",
        )
        curve.add_argument(
            "--output", metavar="PNG", default="sleb_curve.png", help="With --curve: the picture (sleb_curve.png)."
        )
        loading = add_loading_arguments(parser)
        loading.add_argument(
            "--batch-size",
            type=count_from(1),
            metavar="N",
            help="Windows, or requests of a task, at a time (default: 1 window; 64 requests on a GPU, 8 on a CPU).",
        )
        results = add_printing_arguments(parser)
        add_update_card_argument(results)
        results.add_argument("--progress", metavar="DIR", help="Keep every finished task there, and go on from there.")

    def run(self) -> None:
        """Run the command."""
        with exit_on_known_errors("evaluate"), printing(self.args):
            check_source_options(self.args, self.args.model, self.args.baseline)
            if self.args.curve:
                self._draw_curve()
            else:
                self._evaluate_models()

    def _evaluate_models(self) -> None:
        from ..evaluation.evaluate import check_tasks
        from ..evaluation.protocol import paper_scores
        from ..evaluation.scores import without_examples
        from ..evaluation.table import score_table
        from ..hub.card_update import add_to_report_and_card, evaluation_records
        from ..hub.model_files import check_model_folder
        from ..models.positions import check_window_length

        args = self.args
        if args.report:
            raise ConfigError("--report belongs to --curve; without, name the model to evaluate (--model).")
        if not args.model:
            raise ConfigError("Name the model to evaluate (--model).")
        check_tasks(args.tasks, args.data_dir)  # this and the next check come before the long work
        weights = check_model_folder(Path(args.model)).weights_sha256 if args.update_card else None
        arguments = loading_arguments(args)
        names = dict.fromkeys([args.model, *([args.baseline] if args.baseline else [])])
        for name in names:
            check_window_length(name, args.window_length, **arguments)
        results = {name: self._evaluate(name) for name in names}
        pruned, dense = results[args.model], results.get(args.baseline)
        if args.json:
            values = {name: [asdict(without_examples(score)) for score in results[name]] for name in results}
            print(json.dumps(values, allow_nan=False))
        else:
            print(score_table(paper_scores(pruned), paper_scores(dense) if dense else None))
        if args.update_card:  # last: a failure here comes after the printing
            add_to_report_and_card(args.model, evaluation_records(pruned, dense), weights_sha256=weights)

    def _draw_curve(self) -> None:
        from ..card.curve_plot import draw_curve
        from ..evaluation.curve import curve, curve_table
        from ..evaluation.evaluate import check_tasks
        from ..evaluation.protocol import is_text
        from ..evaluation.scores import without_examples
        from ..models.positions import check_window_length
        from ..report.report import PruningReport

        args, arguments = self.args, loading_arguments(self.args)
        if args.baseline or args.limit or args.update_card:
            raise ConfigError("--baseline, --limit and --update-card do not belong to --curve; leave them out.")
        if not os.path.isdir(Path(args.output).absolute().parent):
            raise ConfigError(
                f"There is no folder for the picture {args.output!r}; make it, or name another (--output)."
            )
        if Path(args.output).suffix.lower() != ".png" or Path(args.output).is_dir():
            raise ConfigError(
                f"The picture {args.output!r} must be the name of a .png file; choose another (--output)."
            )
        if not args.report:
            raise ConfigError("--curve draws the depths of a search; name its report (--report).")
        (text, *more) = check_tasks(args.tasks, args.data_dir)
        if more or not is_text(text):
            raise ConfigError(f"The curve is one of perplexity; name one text (--tasks), got {' '.join(args.tasks)}.")
        report = PruningReport.load(args.report)
        name = args.model or report.first_run.base_model
        if name is None:
            raise ConfigError("Name the dense model that the search began with (--model).")
        check_window_length(name, args.window_length, **arguments)
        depths = curve(
            *load_with_tokenizer(name, arguments),
            report,
            text,
            progress_dir=args.progress,
            batch_size=args.batch_size or 1,
            data_dir=args.data_dir,
            **self._protocol(),
        )
        draw_curve(depths, Path(args.output))
        if args.json:
            values = [asdict(replace(depth, score=without_examples(depth.score))) for depth in depths]
            print(json.dumps(values, allow_nan=False))
        else:
            print(f"{curve_table(depths)}\ndrawn to {args.output}")

    def _protocol(self) -> dict[str, Any]:
        return {
            "window_length": self.args.window_length,
            "max_windows": self.args.max_windows,
            "bos_per_window": not self.args.published_bos,
            "text_column": self.args.text_column,
            **{name: value for name, value in vars(self.args).items() if name in _READING_HELP and value is not None},
        }

    def _evaluate(self, name: str) -> "tuple[Score, ...]":
        from ..evaluation.evaluate import evaluate

        args = self.args
        return evaluate(
            *load_with_tokenizer(name, loading_arguments(args)),
            args.tasks,
            limit=args.limit,
            data_dir=args.data_dir,
            batch_size=args.batch_size,
            progress_dir=args.progress,
            **self._protocol(),
        )
