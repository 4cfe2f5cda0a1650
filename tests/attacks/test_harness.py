"""The harness itself: it must see what the attacks are about."""

import time
from pathlib import Path

import pytest

from optimum_sleb import SLEBError

from . import harness
from .harness import assert_refused, assert_right, call, plant, run_command


def test_a_command_that_is_right(model_folder: Path, text_file: Path, tmp_path: Path) -> None:
    options = ["--num-blocks", 1, "--window-length", 32, "--max-windows", 4, "--dataset", text_file, "--device", "cpu"]
    outcome = run_command(["prune", "--model", model_folder, *options, "--output", tmp_path / "out"])
    assert_right(outcome)
    assert outcome.out.endswith(f"saved to {tmp_path / 'out'}\n")


def test_a_command_that_refuses(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert_refused(run_command(["remove", "--report", nowhere, "--output", tmp_path / "o"]), nowhere)
    assert_refused(run_command(["prune", "--model", "m", "--output", "o"]), "--sparsity")


def test_what_is_read_from_standard_input() -> None:
    assert call(input).code == 1, "nothing can be read, and an EOFError is no refusal"


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ("Something is wrong with x.json.", "no remedy"),
        ("Something is wrong; use another file.", "does not name"),
        ("x.json has the wrong name or format.", "no remedy"),
        ("x.json is \x1b[2J wrong; use another file.", "steers the terminal"),
        (f"x.json is {'a' * 2000}; use another file.", "no sentence"),
    ],
    ids=["nothing", "other input", "nouns", "escapes", "too long"],
)
def test_a_refusal_that_helps_nobody(message: str, why: str) -> None:
    def refuse() -> None:
        raise SLEBError(message)

    with pytest.raises(AssertionError, match=why):
        assert_refused(call(refuse), "x.json")


def test_a_traceback_is_seen() -> None:
    outcome = call(lambda: [][0])
    assert outcome.code == 1
    for judge in (assert_refused, assert_right):
        with pytest.raises(AssertionError, match="IndexError"):
            judge(outcome)


def test_time_and_memory_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "MOST_SECONDS", 0.05)
    with pytest.raises(AssertionError, match="took more than"):
        call(lambda: time.sleep(5))
    monkeypatch.undo()
    monkeypatch.setattr(harness, "MOST_BYTES", 10**7)
    with pytest.raises(AssertionError, match="GB"):
        call(lambda: [b"1" * (4 * 10**8), time.sleep(0.2)])


def test_planted_code_is_seen(tmp_path: Path) -> None:
    file = plant(tmp_path / "module.py")
    with pytest.raises(AssertionError, match="planted code ran"):
        call(lambda: exec(file.read_text(), {"__name__": "module"}))
    assert_right(call(lambda: 1))
