"""What commands print, and how much of it: results to stdout, the log to stderr."""

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from optimum_sleb.runtime import logs

from ..attacks.harness import Outcome, run_command

pytestmark = pytest.mark.usefixtures("one_thread")
STEP = "step 1 of 1: block "


@pytest.fixture
def prune(
    model_folder: Path, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    monkeypatch.delenv("OPTIMUM_SLEB_VERBOSITY", raising=False)
    data = ("--dataset", text_file, "--window-length", 20, "--max-windows", 2, "--device", "cpu")
    return lambda *arguments: run_command(
        ["prune", "--model", model_folder, "--output", tmp_path / "out", "--num-blocks", 1, *data, *arguments]
    )


def test_a_line_for_each_step_where_no_terminal_shows_a_bar(prune) -> None:
    outcome = prune("--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["report"]["steps"]
    assert outcome.err.count(STEP) == 1
    assert "candidate window" not in outcome.err, "no bar"
    assert logging.getLogger("optimum_sleb").level != logging.INFO, "as it was before the command"


@pytest.mark.long
@pytest.mark.parametrize(
    ("options", "environment", "is_told"),
    [
        (("--log-level", "info"), "error", True),
        (("--log-level", "warning"), "info", False),
        ((), "warning", False),
        ((), "DEBUG", True),
        (("--quiet",), "debug", False),
    ],
)
def test_levels(prune, monkeypatch: pytest.MonkeyPatch, options: tuple, environment: str, is_told: bool) -> None:
    monkeypatch.setenv("OPTIMUM_SLEB_VERBOSITY", environment)
    outcome = prune(*options)
    assert outcome.code == 0, outcome.err
    assert (STEP in outcome.err) == is_told
    assert "removed, in order: " in outcome.out


def test_quiet_hides_warnings_and_bars(prune, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn_and_look(*_: object, **__: object) -> bool:
        warnings.warn("a warning", stacklevel=1)
        return logs.hides_bars() is True

    monkeypatch.setattr("optimum_sleb.models.before_loading.check_before_loading", warn_and_look)
    outcome = prune("--quiet")
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""


@pytest.mark.parametrize("command", ["prune", "remove", "check", "heal", "evaluate", "benchmark", "push"])
def test_every_command_takes_them(command: str) -> None:
    outcome = run_command([command, "--help"])
    assert outcome.code == 0
    for option in ("--json", "--log-level", "--quiet"):
        assert option in outcome.out
    outcome = run_command([command, "--quiet", "--log-level", "info"])
    assert outcome.code == 2
    assert "not allowed with argument" in outcome.err
