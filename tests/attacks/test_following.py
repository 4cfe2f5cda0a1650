"""Strange names for a criterion, a service or a level of the log: each is refused in one sentence."""

import sys
from pathlib import Path

import pytest

from ..conftest import make_text, make_tokenizer
from ..families import tiny_model
from .harness import Outcome, assert_refused, assert_right, plant, run_command

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("place")
    tiny_model().save_pretrained(place / "dense")
    make_tokenizer(False).save_pretrained(place / "dense")
    (place / "text.txt").write_text(make_text(100))
    (place / "raising.py").write_text("raise ValueError('two\\nlines\\x1b[2J')")
    (place / "leaving.py").write_text("import sys\nsys.exit(0)")
    (place / "unreadable.py").write_text("def f(:")
    (place / "deep.py").write_text("def f():\n    f()\n\nf()")
    (place / "empty.py").write_text("")
    (place / "good.py").write_text("def f(logits, batch):\n    return logits.float().square().mean(dim=(1, 2))\n")
    plant(place / "planted.py")
    return place


@pytest.fixture
def at(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the command adds to it
    return place


def prune(output: Path, *arguments: object) -> Outcome:
    data = ("--dataset", "text.txt", "--window-length", 20, "--num-blocks", 1, "--device", "cpu")
    return run_command(["prune", "--model", "dense", "--output", output, *data, *arguments])


# The value of --criterion, and what the sentence tells.
NAMES = {
    "nothing": ("", "or name a function"),
    "no module": (":f", "or name a function"),
    "no function": ("good:", "or name a function"),
    "no colon": ("good.f", "or name a function"),
    "two colons": ("good:f:g", "or name a function"),
    "a blank": ("good: f", "or name a function"),
    "a line": ("good\n:f", "or name a function"),
    "a path": ("../good:f", "cannot be imported"),
    "a file": ("good.py:f", "cannot be imported"),
    "a relative module": (".good:f", "cannot be imported"),
    "a null byte": ("good:f\0", "cannot be imported"),
    "5000 letters": ("n" * 5000 + ":f", "cannot be imported"),
    "a module that is not there": ("nowhere:f", "No module named 'nowhere'"),
    "a function that is not there": ("empty:f", "has no attribute 'f'"),
    "a value": ("tests.criteria:NOT_CALLABLE", "is no function"),
    "a module that raises": ("raising:f", "ValueError: two lines"),
    "a module that exits": ("leaving:f", "SystemExit"),
    "a module of no Python": ("unreadable:f", "SyntaxError"),
    "a module without end": ("deep:f", "RecursionError"),
    "a function of something else": ("os:system", "os:system failed"),
    "a class": ("builtins:list", "builtins:list failed"),
    "a scalar": ("tests.criteria:scalar", "got float32 of shape ()"),
    "whole numbers": ("tests.criteria:counts", "got int64"),
    "NaN": ("tests.criteria:undefined", "it made nan of finite logits"),
    "a number": ("tests.criteria:number", "got 0.5"),
    "an error": ("tests.criteria:broken", "KeyError"),
}


@pytest.mark.parametrize("what", NAMES)
@pytest.mark.usefixtures("at")
def test_criterion(what: str, tmp_path: Path) -> None:
    name, sentence = NAMES[what]
    assert_refused(prune(tmp_path / "out", f"--criterion={name}"), sentence)
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.usefixtures("at")
def test_a_criterion_in_the_folder_of_work(tmp_path: Path) -> None:
    outcome = prune(tmp_path / "out", "--criterion", "good:f")
    assert_right(outcome)
    assert "criterion: good:f" in outcome.out
    assert "--criterion good:f" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.usefixtures("at")
def test_a_criterion_with_a_budget_of_perplexity() -> None:
    budget = ("--max-perplexity-increase", 0.1, "--criterion", "planted:f")
    assert_refused(run_command(["prune", "--model", "dense", "--output", "out", *budget]), "max_perplexity_increase")


OPTIONS = {
    "no preset": (("--preset", "worst"), "'worst'"),
    "an empty preset": (("--preset", ""), "''"),
    "two presets": (("--preset", "best,published"), "'best,published'"),
    "no space": (("--search-space", "walks"), "'walks'"),
    "an empty space": (("--search-space", ""), "''"),
    "no space by its name": (("--search-space", "None"), "'None'"),
    "no beam": (("--beam-width", "0"), "beam_width must be at least 1, got 0"),
    "a beam of less than nothing": (("--beam-width", "-4"), "beam_width must be at least 1, got -4"),
    "half a beam": (("--beam-width", "1.5"), "'1.5'"),
    "a beam of words": (("--beam-width", "wide"), "'wide'"),
    "an endless beam": (("--beam-width", "1e400"), "'1e400'"),
    "a beam beyond all sets": (("--beam-width", str(10**12)), "beam_width must be at most 2,147,483,647"),
    "kl in capitals": (("--criterion", "KL"), "criterion must be 'kl'"),
    "kl and more": (("--criterion", "kl,ce"), "criterion must be 'kl'"),
    "no compensation": (("--compensate", "every"), "'every'"),
    "every block of too few windows": (("--compensate", "every-block", "--max-windows", 2), "at least 3"),
    "the preset on too few windows": (("--preset", "best", "--max-windows", 2), "at least 3"),
    "sets compensated on the way": (("--search-space", "runs", "--compensate", "during"), "search_space, beam_width"),
    "a beam compensated on the way": (("--beam-width", 2, "--compensate", "during"), "search_space, beam_width"),
    "the preset compensated on the way": (("--preset", "best", "--compensate", "during"), "search_space, beam_width"),
    "no service": (("--report-to", "mlflow"), "'mlflow'"),
    "a service and none": (("--report-to", "none", "wandb"), "'none'"),
    "a module for a service": (("--report-to", "planted"), "'planted'"),
    "an empty service": (("--report-to", ""), "''"),
    "no level": (("--log-level", "loud"), "'loud'"),
    "a number for a level": (("--log-level", "10"), "'10'"),
    "an empty level": (("--log-level", ""), "''"),
}


@pytest.mark.parametrize("what", OPTIONS)
@pytest.mark.usefixtures("at")
def test_options(what: str, tmp_path: Path) -> None:
    options, sentence = OPTIONS[what]
    assert_refused(prune(tmp_path / "out", *options), sentence)


@pytest.mark.parametrize("level", ["loud", "10", "\n", "ü" * 1000])
@pytest.mark.usefixtures("at")
def test_a_level_of_the_environment(level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMUM_SLEB_VERBOSITY", level)
    outcome = prune(tmp_path / "out")
    assert_right(outcome)
    assert "step 1 of 1" in outcome.err
