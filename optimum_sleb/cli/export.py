"""`optimum-cli sleb export`."""

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from optimum.commands.base import BaseOptimumCLICommand

from ..errors import ConfigError, OutputFolderError
from ..runtime.files import replace_file
from .common import exit_on_known_errors
from .describe import describe
from .printing import add_printing_arguments, printing

_OF_GGUF = ("llama_cpp", "gguf_type")

_SENTENCE = "Write a pruned model, or the blocks that went, as others' tools take them."
_EXAMPLES = (
    (
        "A GGUF file, by llama.cpp's own converter.",
        "export --model DIR --format gguf --llama-cpp llama.cpp --output m.gguf",
    ),
    ("The same cut as a passthrough merge.", "export --report DIR --format mergekit-yaml --output cut.yaml"),
    ("The blocks for llama-quantize --prune-layers.", "export --report DIR --format prune-layers"),
)


class ExportCommand(BaseOptimumCLICommand):
    """Command that writes a pruned model, or the blocks that went, as others' tools take them."""

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Declare the arguments."""
        describe(parser, _SENTENCE, "export (--model DIR | --report DIR) --format FORMAT [options]", _EXAMPLES)
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--model", help="Folder that prune, remove or heal wrote.")
        what.add_argument("--report", help="Report (or folder) of a run; not for gguf, which needs the model.")
        parser.add_argument(
            "--format",
            required=True,
            choices=["gguf", "mergekit-yaml", "prune-layers"],
            help="gguf: a file for llama.cpp, by llama.cpp's own converter; mergekit-yaml: a passthrough merge that "
            "makes the same cut; prune-layers: the numbers that llama-quantize --prune-layers takes.",
        )
        parser.add_argument("--output", help="File to write (default, but for gguf: print it).")
        parser.add_argument("--overwrite", action="store_true", help="Replace that file.")
        parser.add_argument("--base-model", help="With mergekit-yaml: the dense model (default: the report's).")
        parser.add_argument(
            "--llama-cpp",
            metavar="PATH",
            help="With gguf: llama.cpp's folder, or its convert_hf_to_gguf.py (default: the one on the PATH).",
        )
        parser.add_argument(
            "--gguf-type",
            choices=["auto", "f32", "f16", "bf16", "q8_0"],
            help="With gguf: type of the weights (default: auto, which is the converter's choice).",
        )
        add_printing_arguments(parser)

    def run(self) -> None:
        """Run the command."""
        with exit_on_known_errors("export"), printing(self.args):
            args = self.args
            _check_options(args)
            if args.format == "gguf":
                self._gguf()
            else:
                self._text()

    def _gguf(self) -> None:
        from ..hub.gguf import convert_to_gguf, find_converter

        args = self.args
        converter = find_converter(args.llama_cpp)
        file = convert_to_gguf(args.model, args.output, converter, args.gguf_type or "auto")
        print(json.dumps({"file": str(file), "bytes": file.stat().st_size}) if args.json else f"saved to {file}")

    def _text(self) -> None:
        args = self.args
        from ..report.stored import report_file

        report_file(args.report or args.model)  # before torch is imported, which a report needs
        from ..hub.export import is_plain_cut, mergekit_yaml, prune_layers
        from ..report.report import PruningReport

        report = PruningReport.load(args.report or args.model)
        yaml = args.format == "mergekit-yaml"
        text = mergekit_yaml(report, args.base_model) if yaml else prune_layers(report)
        if not is_plain_cut(report) and not args.quiet:
            print("this is the plain cut, without the compensation or healing of the report", file=sys.stderr)
        if args.output is not None:
            _write(args.output, text)
        if args.json:
            print(json.dumps({"file": args.output, "text": text}))
        else:
            print(text if args.output is None else f"saved to {args.output}\n", end="")


def _check_options(args: Namespace) -> None:
    """Refuse options that the format has no use for, and a file that cannot be written, before the long imports."""
    gguf = args.format == "gguf"
    if gguf and args.model is None:
        raise ConfigError("--format gguf converts a model, which a report does not hold; name its folder (--model).")
    if gguf and args.output is None:
        raise ConfigError("--format gguf writes a file; name it (--output).")
    unused = (() if gguf else _OF_GGUF) + (() if args.format == "mergekit-yaml" else ("base_model",))
    for name in unused:
        if getattr(args, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')} does not belong to --format {args.format}; leave it out.")
    if args.output is not None:
        _check_output_file(args.output, args.overwrite)


def _check_output_file(output: str, overwrite: bool) -> None:
    """Refuse a file that cannot be written, or is there already."""
    if os.path.isdir(output) or not os.path.isdir(os.path.dirname(output) or "."):
        raise OutputFolderError(f"{output!r} is no file in a folder that exists; name one (--output).")
    if os.path.lexists(output) and not overwrite:
        raise OutputFolderError(f"{output!r} is there already; choose another file, or allow that with --overwrite.")
    if not os.access(os.path.dirname(output) or ".", os.W_OK):
        raise OutputFolderError(f"{output!r} lies in a folder that cannot be written; name another (--output).")


def _write(output: str, text: str) -> None:
    """Write a text whole, or not at all."""
    try:
        replace_file(Path(output), text)
    except OSError as error:
        raise OutputFolderError(f"{output!r} cannot be written ({error}); name another file (--output).") from error
