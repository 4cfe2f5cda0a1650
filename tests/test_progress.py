"""Interrupted runs: resumed == uninterrupted, whatever stopped them."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from optimum_sleb import ConfigError, PruningReport, SLEBConfig, SLEBPruner
from optimum_sleb.errors import JournalError
from optimum_sleb.progress import model_fingerprint
from optimum_sleb.report import JOURNAL_FILE_NAME, REPORT_FILE_NAME

from .families import random_ids, tiny_model

IDS = random_ids(12, 16)
KILLS = 30


class StoppedError(BaseException):
    """As an interrupt: nothing that handles errors may handle it."""


def timeless(report: PruningReport) -> PruningReport:
    """A report without what a clock says."""
    return replace(report, seconds=0.0, created="", steps=tuple(replace(step, seconds=0.0) for step in report.steps))


def run(config: SLEBConfig, folder: Path | None = None, resume: bool = False, stop_after: int | None = None):
    """Prune a tiny model; optionally stop after so many runs of its last block."""
    pruner = SLEBPruner(tiny_model("llama"))
    pruner.calls = 0

    def stop(*_: object) -> None:
        pruner.calls += 1
        if pruner.calls == stop_after:
            raise StoppedError

    pruner.model.model.layers[5].register_forward_hook(stop)
    pruner.prune(config, calibration=IDS, progress_dir=folder, resume=resume)
    return pruner


@pytest.mark.parametrize("search", ["exact", "racing", "reference"])
@pytest.mark.parametrize("done", [0.5, 0.7, 0.9])
def test_resumed_equals_uninterrupted(
    search: str, done: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optimum_sleb.search.journal._SECONDS_BETWEEN_WRITES", 0.0)
    config = SLEBConfig(num_blocks_to_remove=3, search=search, batch_size=2)
    expected = run(config)
    with pytest.raises(StoppedError):
        run(config, tmp_path, stop_after=int(expected.calls * done))
    resumed = run(config, tmp_path, resume=True)
    assert timeless(resumed.report) == timeless(expected.report)
    assert resumed.calls < expected.calls


def test_the_same_run_gives_the_same_result() -> None:
    config = SLEBConfig(num_blocks_to_remove=3)
    assert timeless(run(config).report) == timeless(run(config).report)


def test_a_finished_search_is_only_read(tmp_path: Path) -> None:
    config = SLEBConfig(num_blocks_to_remove=3)
    first = run(config, tmp_path)
    lines = (tmp_path / JOURNAL_FILE_NAME).read_text()
    again = run(config, tmp_path, resume=True)
    assert timeless(again.report) == timeless(first.report)
    assert (tmp_path / JOURNAL_FILE_NAME).read_text() == lines


def test_the_report_of_the_steps_so_far_can_be_used(tmp_path: Path) -> None:
    config = SLEBConfig(num_blocks_to_remove=3, batch_size=1)
    finished = run(config)
    with pytest.raises(StoppedError):
        run(config, tmp_path, stop_after=finished.calls - 20)  # in the third step, which takes 24
    report = PruningReport.load(tmp_path)
    assert report.removed_blocks == finished.report.removed_blocks[:2]
    pruner = SLEBPruner(tiny_model("llama"))
    pruner.apply(report)
    assert pruner.report.parameters_after == report.parameters_after == pruner.model.num_parameters()


def test_saving_the_model_removes_the_journal(tmp_path: Path) -> None:
    folder = tmp_path / "pruned"
    pruner = run(SLEBConfig(num_blocks_to_remove=1), folder)
    assert (folder / JOURNAL_FILE_NAME).is_file()
    (folder / "notes.txt").write_text("mine")
    pruner.save_pretrained(folder)
    assert not (folder / JOURNAL_FILE_NAME).exists()
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_model_that_is_replaced_keeps_its_report_until_then(tmp_path: Path) -> None:
    folder = tmp_path / "pruned"
    run(SLEBConfig(num_blocks_to_remove=1)).save_pretrained(folder)
    before = (folder / REPORT_FILE_NAME).read_text()
    pruner = run(SLEBConfig(num_blocks_to_remove=2), folder)
    assert (folder / REPORT_FILE_NAME).read_text() == before
    pruner.save_pretrained(folder, overwrite=True)
    assert len(PruningReport.load(folder).steps) == 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SLEBConfig(num_blocks_to_remove=2), "recipe.num_blocks_to_remove is 3 there and 2 here"),
        (SLEBConfig(num_blocks_to_remove=3, batch_size=2), "recipe.batch_size is None there and 2 here"),
    ],
)
def test_another_recipe_is_refused(config: SLEBConfig, message: str, tmp_path: Path) -> None:
    run(SLEBConfig(num_blocks_to_remove=3), tmp_path)
    with pytest.raises(JournalError, match=message):
        run(config, tmp_path, resume=True)


@pytest.mark.tries(2)
def test_another_model_and_other_data_are_refused(tmp_path: Path) -> None:
    config = SLEBConfig(num_blocks_to_remove=3)
    run(config, tmp_path)
    other = tiny_model("llama")
    with torch.no_grad():
        other.model.layers[3].mlp.up_proj.weight += 0.01
    with pytest.raises(JournalError, match="model.weights is"):
        SLEBPruner(other).prune(config, calibration=IDS, progress_dir=tmp_path, resume=True)
    with pytest.raises(JournalError, match="data is"):
        SLEBPruner(tiny_model("llama")).prune(config, calibration=IDS[1:], progress_dir=tmp_path, resume=True)


def test_resume_needs_a_place() -> None:
    with pytest.raises(ConfigError, match="say with progress_dir where it is"):
        run(SLEBConfig(num_blocks_to_remove=1), resume=True)


def test_fingerprint() -> None:
    assert model_fingerprint(tiny_model("llama")) == model_fingerprint(tiny_model("llama"))
    changed = tiny_model("llama")
    with torch.no_grad():
        changed.model.norm.weight[7] += 1e-3
    assert model_fingerprint(tiny_model("llama")) != model_fingerprint(changed)


@pytest.mark.slow
@pytest.mark.tries(KILLS)
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """SIGKILL, many times, resumed each time."""
    driver = Path(__file__).with_name("kill_driver.py")
    done = subprocess.run(
        [sys.executable, str(driver), str(tmp_path), str(KILLS)], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result == {"kills": KILLS}
    report = PruningReport.load(tmp_path / "killed")
    assert timeless(report) == timeless(PruningReport.load(tmp_path / "uninterrupted"))
