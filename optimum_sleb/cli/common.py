"""Helpers that the commands share: arguments for loading and output, error messages, printing of results."""

import json
import os
import re
import signal
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..config import MOST
from ..errors import ConfigError, ModelNotFoundError, SLEBError
from .last_net import EXIT_CODE, line_of, one_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ..pruner import SLEBPruner


def count_from(least: int) -> Callable[[str], int]:
    """Return the type of an option that is a whole number of at least `least`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,10}", text) or not least <= int(text) <= MOST:
            raise ArgumentTypeError(f"must be a whole number from {least} to {MOST:,}; got {text[:40]!r}")
        return int(text)

    return parse


MODEL_HELP = "Model on the Hub, or a local folder."


def add_loading_arguments(parser: ArgumentParser) -> Any:
    """Add the arguments that say how a model is loaded, and return their group."""
    group = parser.add_argument_group("device and loading")
    group.add_argument(
        "--device", help="Device, such as cuda or cpu (default: cuda if there is one); auto spreads over all GPUs."
    )
    group.add_argument(
        "--dtype", default="auto", help="Precision to load the model in: auto (the checkpoint's), float32, ..."
    )
    group.add_argument("--revision", help="Branch, tag or commit of a model on the Hub.")
    group.add_argument(
        "--gguf-file", metavar="FILE", help="A GGUF file in the model's folder or repository; it is dequantised."
    )
    group.add_argument(
        "--trust-remote-code", action="store_true", help="Run the code that the model's repository brings along."
    )
    return group


def keep_transformers_quiet() -> None:
    """Let transformers ask nothing, and draw no bars where no terminal shows them. Importing it takes a second."""
    from transformers import dynamic_module_utils
    from transformers.utils.logging import disable_progress_bar

    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # refuses instead of asking whether to run code
    if not sys.stderr.isatty():
        disable_progress_bar()


def loading_arguments(args: Namespace) -> dict[str, Any]:
    """Return the keyword arguments of `from_pretrained` that the command line asks for; refuse what cannot be."""
    import torch

    from ..models.placement import usable_device

    keep_transformers_quiet()
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device != "auto":
        usable_device(device)
    dtype = getattr(torch, args.dtype.removeprefix("torch."), None)
    if args.dtype != "auto" and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ConfigError(
            f"There is no precision {args.dtype!r} (--dtype); name one such as auto, float32 or bfloat16."
        )
    optional = {name: getattr(args, name) for name in ("revision", "gguf_file", "trust_remote_code")}
    return {"dtype": args.dtype, "device_map": device, **{name: value for name, value in optional.items() if value}}


def load_with_tokenizer(name: str, arguments: dict[str, Any]) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Load a model and its tokenizer; raise ModelNotFoundError if either is missing."""
    from ..models.loading import load_model, load_tokenizer

    model, tokenizer = load_model(name, **arguments), load_tokenizer(name, **arguments)
    if tokenizer is None:
        raise ModelNotFoundError(
            f"There is no tokenizer beside the model {name!r}, so it cannot be measured on text; put one there."
        )
    return model, tokenizer


def add_output_arguments(parser: ArgumentParser) -> Any:
    """Add the arguments that name the folder of a model to write, and return their group."""
    group = parser.add_argument_group("output")
    group.add_argument("--output", required=True, metavar="DIR", help="Folder to write the model to.")
    group.add_argument("--overwrite", action="store_true", help="Replace a model that is in the folder already.")
    return group


def add_hub_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of a command that may upload the folder that it writes."""
    group = parser.add_argument_group("Hub and card")
    group.add_argument("--push-to-hub", metavar="REPO", help="Repository on the Hub to upload the folder to.")
    group.add_argument("--private", action="store_true", help="With --push-to-hub: make a new repository private.")
    add_card_arguments(group)


def add_card_arguments(group: Any) -> None:
    """Add what the card of a model from the Hub takes from the dense model's, and that of a local one cannot."""
    group.add_argument("--license", metavar="ID", help="Licence for the card: apache-2.0, llama3.1, other, ...")
    group.add_argument("--base-model", metavar="REPO", help="Name of the dense model on the Hub, for the card.")
    group.add_argument("--language", nargs="+", metavar="CODE", help="Languages for the card: en de ...")


@contextmanager
def lock_output(folder: str, overwrite: bool) -> Iterator[None]:
    """Check that a folder can take a model, and let no other process write to it meanwhile."""
    from ..hub.folder import check_output_folder
    from ..report.folder import lock_folder

    check_output_folder(folder, overwrite, seconds=0)
    with lock_folder(folder, seconds=0):
        yield


def check_push(args: Namespace) -> None:
    """Ask the Hub whether `--push-to-hub` can succeed."""
    if args.push_to_hub is not None:
        from ..hub.target import check_target

        check_target(args.push_to_hub, private=args.private or None)


def add_update_card_argument(parser: ArgumentParser) -> None:
    """Add `--update-card`, of a command that measures `--model`."""
    parser.add_argument(
        "--update-card",
        action="store_true",
        help="Write the results into report and card of --model, a folder that prune, remove or heal wrote.",
    )


@contextmanager
def exit_on_known_errors(command: str, folder: str | None = None) -> Iterator[None]:
    """Print an error as one line without a traceback, and exit: with code 2 if it was expected, else with 70.
    `folder` may hold the journal of a search, of which an unexpected error tells.
    """
    try:
        yield
        sys.stdout.flush()
    except SLEBError as error:
        _fail(command, one_line(str(error)), 2)
    except BrokenPipeError:  # whoever read what is printed has gone, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        _fail(command, "stopped by SIGINT", 128 + signal.SIGINT, kind="")
    except Exception as error:
        state = ""
        if folder is not None:
            with suppress(Exception):
                state = f"; {_state_of(Path(folder))}"
        _fail(command, one_line(f"{line_of(error)}{state}"), EXIT_CODE)


def _fail(command: str, line: str, code: int, kind: str = "error: ") -> NoReturn:
    print(f"optimum-cli sleb {command}: {kind}{line.encode(errors='backslashreplace').decode()}", file=sys.stderr)
    sys.exit(code)


class _StoppedError(BaseException):
    """Exception raised by a stop signal; a `BaseException`, so that error handlers do not catch it."""


@contextmanager
def exit_on_signals(command: str, folder: str, *, quiet: bool = False, state: str | None = None) -> Iterator[None]:
    """Print one line (unless `quiet`) on SIGINT or SIGTERM, and exit with 128 + the number of the signal.
    `state` says what is kept, where that is no search."""
    stopped_by = 0

    def stop(number: int, _frame: object) -> None:
        nonlocal stopped_by
        stopped_by = number
        raise _StoppedError

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except _StoppedError:
        name = signal.Signals(stopped_by).name
        if not quiet:
            print(
                f"optimum-cli sleb {command}: stopped by {name}; {state or _state_of(Path(folder))}", file=sys.stderr
            )
        sys.exit(128 + stopped_by)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _state_of(folder: Path) -> str:
    """Return one sentence on how far an interrupted search got and how to go on."""
    from ..report.folder import JOURNAL_FILE_NAME, weights_in
    from ..report.report import PruningReport

    holds_model = bool(weights_in(folder))
    if not (folder / JOURNAL_FILE_NAME).is_file():
        return f"{folder} holds a whole model." if holds_model else "nothing was measured yet."
    if holds_model:  # an older model, which --overwrite would replace; the report there belongs to it
        removed = "the model that is there is as it was"
    else:
        try:
            removed = f"{len(PruningReport.load(folder).removed_blocks)} removals are decided"
        except SLEBError:
            removed = "no removal is decided yet"
    return f"{removed}, and what was measured is kept; repeat the command with --resume to go on."


def save_and_print(pruner: "SLEBPruner", args: Namespace) -> None:
    """Write the pruned model, upload it if the arguments ask for it, and print the result."""
    fields = {name: getattr(args, name) for name in ("license", "base_model", "language")}
    folder = pruner.save_pretrained(args.output, overwrite=args.overwrite, **fields)
    if not args.json:
        print(pruner.report.summary())
        print(f"saved to {folder}", flush=True)
    # The folder is complete by now: if the upload fails, `optimum-cli sleb push` can repeat it.
    pushed = {"commit": pruner.push_to_hub(args.push_to_hub, private=args.private or None)} if args.push_to_hub else {}
    if args.json:
        print(json.dumps({"folder": str(folder), "report": pruner.report.to_dict(), **pushed}, allow_nan=False))
    elif pushed:
        print(f"pushed to {pushed['commit']}")
