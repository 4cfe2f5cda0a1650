"""Callbacks and the log follow a search as it went, and a callback may stop it."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from optimum_sleb import ConfigError, PruningReport, SearchCallback, SearchControl, SearchState, SLEBConfig, SLEBPruner
from optimum_sleb.card.card import render_card
from optimum_sleb.report.folder import JOURNAL_FILE_NAME
from optimum_sleb.runtime.logs import set_verbosity
from optimum_sleb.runtime.ranks import Ranks
from optimum_sleb.search.following import Followers
from optimum_sleb.search.greedy import Step

from ..families import random_ids, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")
IDS = random_ids(6, 20)


class Recorder(SearchCallback):
    """Keeps all states, and stops or fails at one event of one step."""

    def __init__(self, stop_at: tuple[str, int] | None = None, fail_at: tuple[str, int] | None = None) -> None:
        self.events: list[tuple[str, SearchState]] = []
        self.stop_at, self.fail_at = stop_at, fail_at

    def on(self, event: str, config: SLEBConfig, state: SearchState, control: SearchControl) -> None:
        assert isinstance(config, SLEBConfig)
        self.events.append((event, state))
        if (event, state.step) == self.stop_at:
            control.should_stop = True
        if (event, state.step) == self.fail_at:
            raise ValueError("the callback is broken")

    def on_search_begin(self, *of: Any) -> None:
        self.on("begin", *of)

    def on_candidates_measured(self, *of: Any) -> None:
        self.on("measured", *of)

    def on_block_removed(self, *of: Any) -> None:
        self.on("removed", *of)

    def on_compensated(self, *of: Any) -> None:
        self.on("compensated", *of)

    def on_search_end(self, *of: Any) -> None:
        self.on("end", *of)


def prune(*callbacks: SearchCallback, pruner: SLEBPruner | None = None, **recipe: Any) -> SLEBPruner:
    pruner = pruner or SLEBPruner(tiny_model())
    arguments = {name: recipe.pop(name) for name in ("progress_dir", "resume") if name in recipe}
    config = SLEBConfig(**{"num_blocks_to_remove": 3} | recipe)
    pruner.prune(config, calibration=IDS, callbacks=callbacks, **arguments)
    return pruner


METRICS = {None: "perplexity", "tests.criteria:gain": "gain", "kl": "KL divergence from the dense model"}


@pytest.mark.parametrize("criterion", METRICS)
def test_callbacks_are_told_what_the_report_says(criterion: str | None) -> None:
    first = SLEBPruner(tiny_model())
    first.remove([3])  # so that indices are not numbers
    recorder = Recorder()
    report = prune(recorder, pruner=first, num_blocks_to_remove=2, criterion=criterion).report
    names, states = zip(*recorder.events, strict=True)
    assert names == ("begin", "measured", "removed", "measured", "removed", "end")
    assert [state.step for state in states] == [0, 1, 1, 2, 2, 2]
    assert [state.candidate_losses for state in states[1::2]][:2] == [step.candidate_losses for step in report.steps]
    assert [state.block for state in states] == [None, None, report.steps[0].block, None, *[report.steps[1].block] * 2]
    assert states[-1].removed_blocks == tuple(step.block for step in report.steps)
    values = [report.value_of(loss) for loss in (report.search.loss_before, *(step.loss for step in report.steps))]
    assert [states[0].value, states[2].value, states[4].value] == values
    assert {state.value_before for state in states} == {values[0]}
    assert {(state.num_blocks, state.max_steps) for state in states} == {(5, 2)}
    assert {state.metric for state in states} == {METRICS[criterion]}
    assert states[0].seconds <= states[2].seconds <= states[5].seconds
    assert states[2].eta > 0
    assert states[4].eta == 0
    assert not states[-1].stopped_early


@pytest.mark.long
@pytest.mark.parametrize(("when", "names"), [("during", ["removed", "compensated"] * 2), ("after", ["removed"] * 2)])
def test_compensation_is_told(when: str, names: list[str]) -> None:
    recorder = Recorder()
    report = prune(recorder, num_blocks_to_remove=2, compensate=when).report
    told = [name for name, _ in recorder.events if name in ("removed", "compensated")]
    assert told == (names if when == "during" else [*names, "compensated"])
    last = next(state for name, state in reversed(recorder.events) if name == "compensated")
    assert last.value == report.perplexity_after


@pytest.mark.parametrize("stop_at", [("begin", 0), ("measured", 1), ("removed", 1), ("compensated", 1)])
@pytest.mark.parametrize("compensate", ["no", "during", pytest.param("after", marks=pytest.mark.long)])
@pytest.mark.filterwarnings("error")
def test_a_stop_gives_the_model_of_that_depth(stop_at: tuple[str, int], compensate: str, tmp_path: Path) -> None:
    if stop_at[0] == "compensated" and compensate != "during":
        return
    recorder = Recorder(stop_at=stop_at)
    stopped = prune(recorder, compensate=compensate)
    asked = prune(compensate=compensate, num_blocks_to_remove=1)
    assert stopped.report.removed_blocks == asked.report.removed_blocks
    assert stopped.report.perplexity_after == asked.report.perplexity_after
    with torch.no_grad():
        assert torch.equal(stopped.model(IDS).logits, asked.model(IDS).logits)
    assert recorder.events[-1][0] == "end"
    assert recorder.events[-1][1].stopped_early
    assert (stopped.report.search.stopped_early, asked.report.search.stopped_early) == (True, False)
    assert "stopped early, by a callback" in stopped.report.summary()
    assert "The search was stopped early" in render_card(stopped.report, "me/small").text
    assert "stopped early" not in render_card(asked.report, "me/small").text
    stopped.save_pretrained(tmp_path / "out")
    assert PruningReport.load(tmp_path / "out").search.stopped_early


@pytest.mark.long
def test_a_stop_after_the_last_step_is_not_early() -> None:
    report = prune(Recorder(stop_at=("removed", 2)), num_blocks_to_remove=2).report
    assert not report.search.stopped_early
    assert prune(Recorder(stop_at=("removed", 1)), **BUDGET).report.search.stopped_early


BUDGET = {"num_blocks_to_remove": None, "max_perplexity_increase": 0.9}


def test_a_removal_beyond_the_budget_is_not_told() -> None:
    recorder = Recorder()
    report = prune(recorder, num_blocks_to_remove=None, max_perplexity_increase=0.005).report
    names = [name for name, _ in recorder.events]
    assert names.count("removed") == len(report.steps) == recorder.events[-1][1].step
    assert {state.max_steps for _, state in recorder.events} == {None}
    assert {state.eta for _, state in recorder.events} == {None}


@pytest.mark.long
@pytest.mark.parametrize("fail_at", [("begin", 0), ("measured", 2), ("removed", 2), ("end", 3)])
def test_an_error_leaves_the_model_and_keeps_the_journal(fail_at: tuple[str, int], tmp_path: Path) -> None:
    pruner, expected = SLEBPruner(tiny_model()), prune().report
    before = {name: value.clone() for name, value in pruner.model.state_dict().items()}
    with pytest.raises(ValueError, match="the callback is broken"):
        prune(Recorder(fail_at=fail_at), pruner=pruner, progress_dir=tmp_path)
    assert len(pruner.blocks) == pruner.model.config.num_hidden_layers == 6
    assert all(torch.equal(value, before[name]) for name, value in pruner.model.state_dict().items())
    assert (tmp_path / JOURNAL_FILE_NAME).is_file()
    resumed = prune(progress_dir=tmp_path, resume=True).report
    assert [step.candidate_losses for step in resumed.steps] == [step.candidate_losses for step in expected.steps]


@pytest.mark.parametrize("callback", [Recorder, TrainerCallback(), print])
def test_what_is_no_callback_is_refused(callback: Any) -> None:
    with pytest.raises(ConfigError, match="A callback of a search must be a SearchCallback object; got "):
        prune(callback)


class TestLog:
    @pytest.fixture(autouse=True)
    def at_info(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, logger="optimum_sleb")

    def test_a_line_for_each_step(self, caplog: pytest.LogCaptureFixture) -> None:
        report = prune(num_blocks_to_remove=2).report
        values = [report.value_of(loss) for loss in (report.search.loss_before, report.steps[0].loss)]
        lines = [record.getMessage() for record in caplog.records if record.name == "optimum_sleb.search.following"]
        change = f"perplexity {values[0]:.2f} -> {values[1]:.2f}"
        assert len(lines) == 2
        assert lines[0].startswith(f"step 1 of 2: block {report.removed_blocks[0]} removed, {change}, 0.")
        assert lines[0].endswith(" s left")
        assert lines[1].startswith(
            f"step 2 of 2: block {report.removed_blocks[1]} removed, perplexity {values[1]:.2f}"
        )
        assert "left" not in lines[1]

    def test_compensation_and_a_stop(self, caplog: pytest.LogCaptureFixture) -> None:
        report = prune(Recorder(stop_at=("removed", 1)), compensate="after").report
        messages = [record.getMessage() for record in caplog.records]
        before, after = report.value_of(report.steps[0].loss), report.perplexity_after
        assert messages[-2:] == [
            f"compensated: perplexity {before:.2f} -> {after:.2f}",
            "stopped by a callback after step 1",
        ]

    def test_only_the_first_process_logs_and_calls(self, caplog: pytest.LogCaptureFixture) -> None:
        ranks, recorder = Ranks.alone(), Recorder()
        ranks.rank = 1
        followers = Followers(SLEBConfig(num_blocks_to_remove=1), ranks, [recorder])
        followers.begin(6, 4, 1, "perplexity", 20.0)
        followers.measured(Step(2, {2: 3.0}))
        followers.removed(2, 21.0, None)
        followers.end(early=True)
        assert recorder.events == []
        assert caplog.records == []

    def test_the_time_that_is_left(self) -> None:
        followers = Followers(SLEBConfig(num_blocks_to_remove=3), Ranks.alone(), [recorder := Recorder()])
        followers.begin(6, 4, 3, "perplexity", 20.0)
        followers.measured(Step(2, {2: 3.0}))
        followers.removed(2, 21.0, None)
        state = recorder.events[-1][1]
        assert state.eta == pytest.approx(state.step_seconds * (3 * 5 + 2 * 4) / (4 * 6))
        assert replace(state, eta=None).step == 1


def test_nothing_is_logged_unless_asked_for(capsys: pytest.CaptureFixture) -> None:
    prune(num_blocks_to_remove=1)
    assert "step 1" not in capsys.readouterr().err
    set_verbosity("warning")
