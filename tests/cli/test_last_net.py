"""What no check foresaw: one line, exit code 70, and a file for a bug report."""

import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from optimum_sleb import SLEBError
from optimum_sleb.cli.common import exit_on_known_errors
from optimum_sleb.report.folder import JOURNAL_FILE_NAME
from optimum_sleb.search.greedy import greedy_removals
from optimum_sleb.version import __version__

from ..hub.local_hub import TOKEN

unforeseen = pytest.mark.reliability(
    "an error that nothing foresaw, in a command", lost="nothing; exit code 70, one line, the traceback in a file"
)


@pytest.fixture(autouse=True)
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that temporary files go to."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def line_of(error: BaseException, code: int, capsys: pytest.CaptureFixture, folder: Path | None = None) -> str:
    with pytest.raises(SystemExit) as ended, exit_on_known_errors("check", None if folder is None else str(folder)):
        raise error
    assert ended.value.code == code
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("optimum-cli sleb check: ")
    return line


@unforeseen
def test_the_file_holds_what_a_bug_report_needs(
    reports: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["optimum-cli", "sleb", "check", "--model", "a b"])
    line = line_of(KeyError("no such thing"), 70, capsys)
    (file,) = reports.iterdir()
    assert line.endswith(f"error: internal error: KeyError: 'no such thing'; report it as a bug of optimum-sleb, "
                         f"with the traceback in {file}")  # fmt: skip
    text = file.read_text()
    assert "command: optimum-cli sleb check --model 'a b'\n" in text
    assert f"optimum-sleb: {__version__}\n" in text
    assert f"torch: {torch.__version__.partition('+')[0]}" in text
    assert text.endswith("raise error\nKeyError: 'no such thing'\n")
    assert "Traceback (most recent call last):" in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@unforeseen
def test_no_secret_is_in_it(reports: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(sys, "argv", ["optimum-cli", "sleb", "push", "--repo", f"https://me:{TOKEN}x@hub/a"])
    error = RuntimeError(f"Bearer {TOKEN} was refused")
    error.__cause__ = OSError(f"GET ?token={TOKEN}")
    line = line_of(error, 70, capsys)
    (file,) = reports.iterdir()
    assert TOKEN not in line + file.read_text()
    assert "Bearer *** was refused" in line


@unforeseen
@pytest.mark.parametrize(
    "error",
    [
        ValueError("a\nb\x1b[2Jc\r\u202ed"),
        RuntimeError("x" * 10**6),
        OSError(),
        RecursionError(),
        ImportError("no torch"),
    ],
    ids=["lines and escapes", "a megabyte", "nothing to say", "recursion", "import"],
)
def test_whatever_it_says_is_one_line(error: Exception, reports: Path, capsys: pytest.CaptureFixture) -> None:
    line = line_of(error, 70, capsys)
    assert line.isprintable()
    assert len(line) < 1000
    assert str(next(reports.iterdir())) in line


@unforeseen
def test_an_error_that_cannot_be_told(capsys: pytest.CaptureFixture) -> None:
    class Mute(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert "Mute" in line_of(Mute(), 70, capsys)


@unforeseen
def test_a_file_that_cannot_be_written(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    line = line_of(KeyError("x"), 70, capsys)
    assert re.search(
        r"KeyError: 'x' \(\S+test_last_net.py, line \d+; its traceback cannot be written: .*nowhere", line
    )


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (SLEBError("two\nlines"), 2, "error: two lines"),
        (KeyboardInterrupt(), 130, "stopped by SIGINT"),
        (MemoryError(), 70, "error: memory ran out (MemoryError); take"),
        (torch.OutOfMemoryError("CUDA out of memory"), 70, "memory ran out"),
    ],
    ids=["expected", "interrupt", "memory", "memory of a GPU"],
)
def test_what_is_no_bug(error: BaseException, code: int, says: str, reports: Path, capsys) -> None:
    assert says in line_of(error, code, capsys)
    assert list(reports.iterdir()) == []


@unforeseen
@pytest.mark.long
def test_the_journal_stays_and_the_search_goes_on(
    model_folder: Path, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ..attacks.harness import assert_right, run_command

    options = ["--num-blocks", 2, "--window-length", 32, "--dataset", text_file, "--device", "cpu"]
    command = ["prune", "--model", model_folder, *options, "--output", tmp_path / "out"]

    def fail_after_one(*arguments, **named):
        yield next(greedy_removals(*arguments, **named))
        raise IndexError("list index out of range")

    with monkeypatch.context() as patch:
        patch.setattr("optimum_sleb.search.greedy_search.greedy_removals", fail_after_one)
        outcome = run_command(command)
    assert outcome.code == 70
    assert outcome.err.splitlines()[-1].endswith(
        "1 removals are decided, and what was measured is kept; repeat the command with --resume to go on."
    )
    assert (tmp_path / "out" / JOURNAL_FILE_NAME).is_file()
    assert_right(run_command([*command, "--resume"]))


SHARED = """
import sys
from optimum_sleb.cli import prune
from optimum_sleb.runtime.ranks import Ranks

def fail(self, config, ranks):
    with ranks.fail_together():
        if ranks.rank == 1:
            raise KeyError("only here")
    raise AssertionError("the other went on")

prune.PruneCommand._prune = fail
from optimum.commands.optimum_cli import main
sys.argv = ["optimum-cli", "sleb", "prune", "--model", "m", "--num-blocks", "1", "--output", "o", "--device", "cpu"]
main()
"""


@unforeseen
@pytest.mark.long
def test_one_of_two_processes(reports: Path, tmp_path: Path) -> None:
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "TMPDIR": str(reports)}
    common |= {"MASTER_PORT": str(20000 + os.getpid() % 20000), "LOCAL_WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SHARED], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
            env={**common, "RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 70], errors
    assert "Traceback" not in "".join(errors)
    assert "error: Process 1 of 2 failed: KeyError: 'only here'" in errors[0]
    (file,) = reports.glob("optimum-sleb-bug-*")
    assert str(file) in errors[1]
    assert "process: 1 of 2\n" in file.read_text()


@pytest.mark.long
def test_whoever_reads_the_output_may_leave(model_folder: Path) -> None:
    command = [Path(sys.executable).with_name("optimum-cli"), "sleb", "check", "--model", model_folder]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(timeout=120) == 128 + signal.SIGPIPE
    assert not [line for line in errors.splitlines() if "Pipe" in line or "Traceback" in line]
