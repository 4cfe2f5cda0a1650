"""Interrupted runs: resumed == uninterrupted, whatever stopped them."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from optimum_sleb import ConfigError, PruningReport, SLEBConfig, SLEBPruner
from optimum_sleb.errors import JournalError
from optimum_sleb.models.fingerprint import weights_hash
from optimum_sleb.report.folder import JOURNAL_FILE_NAME, REPORT_FILE_NAME

from .. import mishaps
from ..families import random_ids, tiny_model

IDS = random_ids(12, 16)
KILLS = 30


class StoppedError(BaseException):
    """As an interrupt: nothing that handles errors may handle it."""


def timeless(report: PruningReport) -> PruningReport:
    """A report without what a clock says."""
    steps = tuple(replace(step, seconds=0.0) for step in report.steps)
    compensation = report.compensation and replace(report.compensation, seconds=0.0)
    return replace(report, seconds=0.0, created="", steps=steps, compensation=compensation)


def run(
    config: SLEBConfig,
    folder: Path | None = None,
    resume: bool = False,
    stop_after: int | None = None,
    memory_runs_out_after: int | None = None,
):
    """Prune a tiny model; optionally stop after so many runs of its last block, or let memory run out once."""
    pruner = SLEBPruner(tiny_model("llama"))
    pruner.calls = 0

    def stop(*_: object) -> None:
        pruner.calls += 1
        if pruner.calls == stop_after:
            raise StoppedError
        if pruner.calls == memory_runs_out_after:
            raise torch.OutOfMemoryError

    pruner.model.model.layers[5].register_forward_hook(stop)
    pruner.prune(config, calibration=IDS, progress_dir=folder, resume=resume)
    return pruner


@pytest.mark.long
@pytest.mark.reliability(
    "an interrupt in the first, second or third step: exact, racing and reference search, without compensation, with "
    "it during and after the search",
    lost="nothing of what was measured, and the fits: the report is identical",
)
@pytest.mark.parametrize("compensate", ["no", "during", "after"])
@pytest.mark.parametrize("search", ["exact", "racing", "reference"])
@pytest.mark.parametrize("done", [0.5, 0.7, 0.9])
def test_resumed_equals_uninterrupted(
    search: str, done: float, compensate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optimum_sleb.search.journal.SECONDS_BETWEEN_WRITES", 0.0)
    config = SLEBConfig(num_blocks_to_remove=3, search=search, batch_size=2, compensate=compensate)
    expected = run(config)
    with pytest.raises(StoppedError):
        run(config, tmp_path, stop_after=int(expected.calls * done))
    resumed = run(config, tmp_path, resume=True)
    assert timeless(resumed.report) == timeless(expected.report)
    assert resumed.calls < expected.calls


@pytest.mark.long
@mishaps.memory_runs_out_then_an_interrupt
@pytest.mark.parametrize("search", ["exact", "racing", "reference"])
@pytest.mark.parametrize("done", [0.6, 0.8, None])
def test_resumed_equals_uninterrupted_where_memory_ran_out(
    search: str, done: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it would suffice when the run goes on: what is counted, and the batch size, are the same."""
    monkeypatch.setattr("optimum_sleb.search.journal.SECONDS_BETWEEN_WRITES", 0.0)
    config = SLEBConfig(num_blocks_to_remove=3, search=search, batch_size=6)
    half = run(config).calls // 2
    expected = run(config, memory_runs_out_after=half)
    assert expected.report.search.batch_size < 6
    if done is None:  # all is on the disk
        run(config, tmp_path, memory_runs_out_after=half)
    else:
        with pytest.raises(StoppedError):
            run(config, tmp_path, stop_after=int(expected.calls * done), memory_runs_out_after=half)
    resumed = run(config, tmp_path, resume=True)
    assert timeless(resumed.report) == timeless(expected.report)


@pytest.mark.long
def test_the_same_run_gives_the_same_result() -> None:
    config = SLEBConfig(num_blocks_to_remove=3)
    assert timeless(run(config).report) == timeless(run(config).report)


@pytest.mark.long
def test_a_finished_search_is_only_read(tmp_path: Path) -> None:
    config = SLEBConfig(num_blocks_to_remove=3)
    first = run(config, tmp_path)
    lines = (tmp_path / JOURNAL_FILE_NAME).read_text()
    again = run(config, tmp_path, resume=True)
    assert timeless(again.report) == timeless(first.report)
    assert (tmp_path / JOURNAL_FILE_NAME).read_text() == lines


@pytest.mark.long
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


@pytest.mark.long
def test_saving_the_model_removes_the_journal(tmp_path: Path) -> None:
    folder = tmp_path / "pruned"
    pruner = run(SLEBConfig(num_blocks_to_remove=1), folder)
    assert (folder / JOURNAL_FILE_NAME).is_file()
    (folder / "notes.txt").write_text("mine")
    pruner.save_pretrained(folder)
    assert not (folder / JOURNAL_FILE_NAME).exists()
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.long
def test_a_model_that_is_replaced_keeps_its_report_until_then(tmp_path: Path) -> None:
    folder = tmp_path / "pruned"
    run(SLEBConfig(num_blocks_to_remove=1)).save_pretrained(folder)
    before = (folder / REPORT_FILE_NAME).read_text()
    pruner = run(SLEBConfig(num_blocks_to_remove=2), folder)
    assert (folder / REPORT_FILE_NAME).read_text() == before
    pruner.save_pretrained(folder, overwrite=True)
    assert len(PruningReport.load(folder).steps) == 2


@pytest.mark.long
@mishaps.journal_that_is_refused
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


@pytest.mark.long
@mishaps.journal_that_is_refused
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


@pytest.mark.long
@mishaps.journal_that_is_refused
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}},
            "model.config.rope_parameters.rope_theta is 10000.0 there and 500000.0 here",
        ),
        ({"rms_norm_eps": 1e-3}, "model.config.rms_norm_eps is 1e-06 there and 0.001 here"),
        ({"hidden_act": "gelu"}, "model.config.hidden_act is 'silu' there and 'gelu' here"),
    ],
)
def test_the_same_weights_with_another_config_are_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    config = SLEBConfig(num_blocks_to_remove=3)
    run(config, tmp_path)
    other = tiny_model("llama", **change)
    assert weights_hash(other) == weights_hash(tiny_model("llama"))
    with pytest.raises(JournalError, match=message):
        SLEBPruner(other).prune(config, calibration=IDS, progress_dir=tmp_path, resume=True)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:No tokenizer")
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_a_model_that_is_loaded_again_goes_on(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    model.save_pretrained(tmp_path / "dense")
    shutil.copytree(tmp_path / "dense", tmp_path / "moved")
    config = SLEBConfig(num_blocks_to_remove=1)
    SLEBPruner(model).prune(config, calibration=IDS, progress_dir=tmp_path / "out")
    for folder in ("dense", "moved"):
        again = SLEBPruner.from_pretrained(tmp_path / folder)
        again.prune(config, calibration=IDS, progress_dir=tmp_path / "out", resume=True)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:No tokenizer")
def test_a_model_that_another_process_loads_goes_on(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path / "dense")
    config = SLEBConfig(num_blocks_to_remove=1)
    SLEBPruner.from_pretrained(tmp_path / "dense").prune(config, calibration=IDS, progress_dir=tmp_path / "out")
    torch.save(IDS, tmp_path / "ids.pt")
    script = (
        "import sys, torch; from optimum_sleb import SLEBConfig, SLEBPruner; dense, ids, out = sys.argv[1:]; "
        "SLEBPruner.from_pretrained(dense).prune(SLEBConfig(num_blocks_to_remove=1), calibration=torch.load(ids), "
        "progress_dir=out, resume=True)"
    )
    arguments = [str(tmp_path / name) for name in ("dense", "ids.pt", "out")]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_resume_needs_a_place() -> None:
    with pytest.raises(ConfigError, match="say with progress_dir where it is"):
        run(SLEBConfig(num_blocks_to_remove=1), resume=True)


@pytest.mark.reliability(
    "`kill -9` at random moments of a search, resumed each time; a small model of random weights",
    lost="nothing: the report is identical",
)
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
