"""How a strange input is tried: a command or a call in this process, what came of it, and what must never come of it.

A case is a line of a table: what is damaged, how, and the door that it comes in by. It ends in a refusal, which
`assert_refused` judges, or in the right result (`assert_right`). No case may take more than a minute or 2 GB, and none
may run code that `plant` put where a careless loader would run it; `run_command` and `call` see to these themselves.
"""

import io
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from optimum.commands import optimum_cli

from optimum_sleb import SLEBError

MOST_SECONDS = 60.0
MOST_BYTES = 2 * 10**9  # above what the process held before
# Planted code writes this file; its module may not import anything of ours, so it is told the path.
_FOLDER = tempfile.TemporaryDirectory(prefix="optimum-sleb-attacks-")  # removed when the process ends
PLANTED = Path(_FOLDER.name) / "it-ran"
PLANTED_CODE = f"open({str(PLANTED)!r}, 'w').write(__name__)\n"

# How the commands begin their errors, argparse among them.
_ERROR = re.compile(r"^optimum-cli(?: sleb)?(?: [a-z]+)?: error: ", flags=re.MULTILINE)
# What a remedy is told by: an option, what would be allowed, or a verb at the beginning of a clause.
_REMEDY = re.compile(
    r"--[a-z]|\w=\w|\bmust\b|\bexactly one of\b|\bknown keys\b|\bchoose from\b|\bexpected\b|"
    r"(?:^|[;:,.(] |\bor |\band |\bthen |\btrust, )(?:"
    "add|allow|ask|begin|change|choose|close|convert|copy|cut|declare|delete|dequantise|do not|get|give|go on|"
    "install|leave|list|load|log in|lower|make|mend|merge|move|name|open|pass|point|put|raise|record|remove|rename|"
    "repair|repeat|replace|restore|run|save|say|set|shorten|start|switch|take|try|turn|unset|update|use|wait|write)\\b",
    flags=re.IGNORECASE,
)


@dataclass(frozen=True)
class Outcome:
    """What came of a case. `code` is the exit code; a call from Python has that of the command it stands for."""

    code: int
    out: str
    err: str
    seconds: float
    peak: int  # bytes above those held before
    value: Any = None  # what a call returned


class TooSlowError(BaseException):
    """Not an `Exception`, so that nothing between the case and the harness takes it for its own."""


def run_command(arguments: Sequence[object], stdin: str | None = None) -> Outcome:
    """Run `optimum-cli sleb ARGUMENTS` in this process, which spares the seconds that importing torch takes.
    `stdin` is all that it can read there; nothing, unless given.
    """
    argv = ["optimum-cli", "sleb", *map(str, arguments)]
    with patch.object(sys, "argv", argv), patch.object(sys, "stdin", io.StringIO(stdin or "")):
        return _watched(optimum_cli.main)


def call(function: Callable[..., Any], *arguments: Any, **named: Any) -> Outcome:
    """Call something of the package as a program would. A SLEBError counts as exit code 2, with its message as the
    error of a command; anything else that escapes as 1, with its traceback."""

    def attempt() -> Any:
        try:
            return function(*arguments, **named)
        except SLEBError as error:
            print(f"optimum-cli sleb: error: {' '.join(str(error).split())}", file=sys.stderr)
            sys.exit(2)

    return _watched(attempt)


def plant(file: Path, code: str = "") -> Path:
    """Write a Python file that leaves a trace if it is run; what it must define besides comes as `code`."""
    file.write_text(PLANTED_CODE + code, encoding="utf-8")
    return file


def assert_refused(outcome: Outcome, *names: object) -> None:
    """The case ended with exit code 2 and one line of error, which holds each of `names` and what to do."""
    told = f"exit code {outcome.code}\n{outcome.err}"
    assert "Traceback" not in outcome.err, told
    assert outcome.code == 2, told
    lines = outcome.err.splitlines()
    errors = [line for line in lines if _ERROR.match(line)]
    assert len(errors) == 1, told
    assert lines[-1] == errors[0], f"the error is the last line, and has one\n{told}"
    message = _ERROR.sub("", errors[0])
    missing = [str(name) for name in names if str(name) not in message]
    assert not missing, f"the message does not name {missing}\n{told}"
    assert _REMEDY.search(message), f"the message has no remedy\n{told}"
    assert len(message) < 2000, f"the message is no sentence, it has {len(message)} characters\n{told[:3000]}"
    assert message.isprintable(), f"the message steers the terminal\n{told!r}"


def assert_right(outcome: Outcome) -> None:
    """The case gave a result, and nothing that looks like a failure."""
    told = f"exit code {outcome.code}\n{outcome.err}"
    assert "Traceback" not in outcome.err, told
    assert outcome.code == 0, told


def _watched(function: Callable[[], Any]) -> Outcome:
    PLANTED.unlink(missing_ok=True)
    out, err, value, code = io.StringIO(), io.StringIO(), None, 0
    began = time.monotonic()
    with redirect_stdout(out), redirect_stderr(err), _peak() as peak:
        try:
            with _limited(MOST_SECONDS):
                value = function()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except TooSlowError:
            raise AssertionError(f"took more than {MOST_SECONDS:.0f} s\n{err.getvalue()}") from None
        except Exception:
            code = 1
            traceback.print_exc()
    outcome = Outcome(code, out.getvalue(), err.getvalue(), time.monotonic() - began, peak(), value)
    assert outcome.seconds <= MOST_SECONDS, f"took {outcome.seconds:.0f} s"
    assert outcome.peak <= MOST_BYTES, f"took {outcome.peak / 1e9:.1f} GB"
    assert not PLANTED.exists(), f"planted code ran, as {PLANTED.read_text()}"
    return outcome


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise TooSlowError when the time is over. The timer is also that of pytest-timeout, which gets it back."""

    def stop(_number: int, _frame: object) -> None:
        raise TooSlowError

    before = signal.signal(signal.SIGALRM, stop)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    began = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 0.01), interval)


@contextmanager
def _peak() -> Iterator[Callable[[], int]]:
    """Give a function that says how much memory was held at most, above what was held at the beginning.
    It looks every 10 ms: the kernel's own mark cannot be reset everywhere."""
    before, highest, done = _resident(), _resident(), threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.01):
            highest = max(highest, _resident())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: highest - before
    finally:
        highest = max(highest, _resident())
        done.set()
        watcher.join()


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
