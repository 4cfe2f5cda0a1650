"""Whole searches over sets of blocks: every way to measure decides as a brute force, and compensation chooses."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from optimum_sleb import (
    CalibrationError,
    ConfigError,
    SearchCallback,
    SearchControl,
    SearchState,
    SLEBConfig,
    SLEBPruner,
)
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.compensation.compensator import Compensator
from optimum_sleb.errors import UnsupportedModelError
from optimum_sleb.report.depths import DepthRecord
from optimum_sleb.report.report import PruningReport
from optimum_sleb.runtime.ranks import Ranks
from optimum_sleb.search.reference import ReferenceLosses

from ..families import random_ids, tiny_model
from .test_beam import brute_force
from .test_compensating import same_weights

pytestmark = pytest.mark.usefixtures("one_thread")
NUM_BLOCKS = 7
CANDIDATES = (1, 2, 3, 4, 5)
IDS = [*random_ids(8, 20), *random_ids(4, 11)]
RUNS: dict[str, Any] = {"search_space": "runs", "beam_width": 2}


def pruner(**overrides: Any) -> SLEBPruner:
    return SLEBPruner(tiny_model(num_hidden_layers=NUM_BLOCKS, **overrides))


def prune(arguments: dict[str, Any] | None = None, **recipe: Any) -> SLEBPruner:
    one = pruner()
    one.prune(SLEBConfig(**{"num_blocks_to_remove": 3} | recipe), calibration=IDS, **arguments or {})
    return one


def timeless(report: PruningReport) -> PruningReport:
    """A report without what a clock says."""
    depths = tuple(replace(depth, seconds=0.0) for depth in report.depths)
    compensation = report.compensation and replace(report.compensation, seconds=0.0)
    return replace(report, seconds=0.0, created="", depths=depths, compensation=compensation)


def assert_same_depths(depths: Sequence[DepthRecord], expected: Sequence[DepthRecord]) -> None:
    assert [depth.removed for depth in depths] == [depth.removed for depth in expected]
    for one, other in zip(depths, expected, strict=True):
        assert [of.removed for of in one.sets] == [of.removed for of in other.sets]
        for mine, theirs in zip(one.sets, other.sets, strict=True):
            assert mine.loss == pytest.approx(theirs.loss, rel=1e-4, abs=1e-5)
            assert mine.held_back_loss == (
                theirs.held_back_loss and pytest.approx(theirs.held_back_loss, rel=1e-3, abs=1e-4)
            )


@pytest.mark.long
@pytest.mark.parametrize(("width", "with_runs"), [(1, True), (2, True), (3, False)])
def test_it_decides_as_a_brute_force_over_the_whole_model(width: int, with_runs: bool) -> None:
    model = tiny_model(num_hidden_layers=NUM_BLOCKS)
    windows = TokenWindows(tuple(IDS))
    slow = ReferenceLosses(model, find_decoder_stack(model), windows)
    loss_of = {
        one: slow.losses_of([block for block in range(NUM_BLOCKS) if block not in one]).double().sum().item()
        for size in (1, 2, 3)
        for one in combinations(CANDIDATES, size)
    }
    expected = brute_force(loss_of, width, with_runs)
    report = prune(search_space="runs" if with_runs else None, beam_width=width).report
    assert [depth.removed for depth in report.depths] == [kept[0] for kept in expected]
    for depth, kept in zip(report.depths, expected, strict=True):
        assert [one.removed for one in depth.sets[:width]] == kept
        for one in depth.sets:
            assert one.loss == pytest.approx(loss_of[one.removed], rel=1e-5)
    assert report.removed_blocks == expected[-1][0]


def test_of_width_one_it_is_the_published_search() -> None:
    greedy, wide = prune().report, prune(search_space=None, beam_width=1).report
    assert greedy.removed_blocks == wide.removed_blocks
    assert wide.depths == ()  # it is that search
    sets = prune(search_space=None, beam_width=2).report
    assert [one.loss for one in sets.depths[0].sets[:2]] == sorted(greedy.steps[0].candidate_losses.values())[:2]


WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "reference": ({"search": "reference"}, {}),
    "racing": ({"search": "racing", "racing_confidence": 1e9}, {}),
    "one window at a time": ({"batch_size": 1}, {}),
    "offloaded": ({}, {"device": "cpu", "offload": "cpu"}),
    "offloaded racing": ({"search": "racing", "racing_confidence": 1e9}, {"device": "cpu", "offload": "cpu"}),
}
RECIPES: dict[str, dict[str, Any]] = {
    "loss": RUNS,
    "kl": {**RUNS, "criterion": "kl"},
    "kl, every block": {**RUNS, "criterion": "kl", "compensate": "every-block"},
    "wide, after": {"beam_width": 3, "compensate": "after"},
}


@pytest.mark.long
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("way", WAYS)
def test_every_way_decides_alike(way: str, recipe: dict[str, Any]) -> None:
    of_way, arguments = WAYS[way]
    exact, other = prune(**recipe), prune(arguments, **recipe, **of_way)
    assert_same_depths(other.report.depths, exact.report.depths)
    assert other.blocks == exact.blocks
    for name, value in exact.model.state_dict().items():
        torch.testing.assert_close(other.model.state_dict()[name], value, rtol=1e-2, atol=1e-3)
    if "racing" in way:
        assert other.report.search.exact_block_passes == exact.report.search.block_passes


@pytest.mark.long
def test_a_race_keeps_the_leading_sets_for_less_work() -> None:
    many = {"calibration": random_ids(64, 12)}
    exact, racing = pruner(), pruner()
    exact.prune(num_blocks_to_remove=3, **RUNS, **many)
    racing.prune(num_blocks_to_remove=3, search="racing", **RUNS, **many)
    for fast, slow in zip(racing.report.depths, exact.report.depths, strict=True):
        assert [one.removed for one in fast.sets[:2]] == [one.removed for one in slow.sets[:2]]
        assert fast.num_measured == slow.num_measured
    record = racing.report.search
    assert record.block_passes < record.exact_block_passes == exact.report.search.block_passes


class StoppedError(BaseException):
    """As an interrupt: nothing that handles errors may handle it."""


@pytest.mark.long
@pytest.mark.parametrize(
    ("search", "recipe"), [("exact", "kl, every block"), ("racing", "kl"), ("racing", "wide, after")]
)
def test_resumed_equals_uninterrupted(
    search: str, recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optimum_sleb.search.journal.SECONDS_BETWEEN_WRITES", 0.0)
    config = SLEBConfig(num_blocks_to_remove=3, search=search, batch_size=2, **RECIPES[recipe])

    def run(stop_after: int | None = None, **arguments: Any) -> tuple[SLEBPruner, int]:
        one, calls = pruner(), 0

        def count(*_: object) -> None:
            nonlocal calls
            calls += 1
            if calls == stop_after:
                raise StoppedError

        one.model.model.layers[6].register_forward_hook(count)
        one.prune(config, calibration=IDS, **arguments)
        return one, calls

    expected, all_calls = run()
    for number, share in enumerate((0.2, 0.5, 0.8)):
        folder = tmp_path / str(number)
        with pytest.raises(StoppedError):
            run(int(all_calls * share), progress_dir=folder)
        resumed, calls = run(progress_dir=folder, resume=True)
        assert timeless(resumed.report) == timeless(expected.report)
        assert same_weights(resumed, expected)
        assert calls <= all_calls - (number == 2)  # by then, something had been measured


class Listener(SearchCallback):
    """Keeps what it was told, and stops after a depth."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.told: list[tuple[str, SearchState]] = []
        self.stop_after = stop_after

    def on_candidates_measured(self, config: SLEBConfig, state: SearchState, control: SearchControl) -> None:
        self.told.append(("measured", state))

    def on_block_removed(self, config: SLEBConfig, state: SearchState, control: SearchControl) -> None:
        self.told.append(("removed", state))
        control.should_stop = state.step == self.stop_after

    def on_compensated(self, config: SLEBConfig, state: SearchState, control: SearchControl) -> None:
        self.told.append(("compensated", state))

    def on_search_end(self, config: SLEBConfig, state: SearchState, control: SearchControl) -> None:
        self.told.append(("end", state))


@pytest.mark.long
@pytest.mark.parametrize("stop_after", [None, 1, 2])
def test_callbacks_follow_and_stop(stop_after: int | None) -> None:
    listener = Listener(stop_after)
    recipe = {"search_space": "runs", "beam_width": 4, "compensate": "every-block"}
    stopped = prune({"callbacks": [listener]}, **recipe)
    straight = prune(**recipe, num_blocks_to_remove=stop_after or 3)
    assert_same_depths(stopped.report.depths, straight.report.depths)
    assert same_weights(stopped, straight)
    assert stopped.report.search.stopped_early == (stop_after is not None)
    depths = stopped.report.depths
    names = [name for name, _ in listener.told]
    assert names == ["measured", "removed"] * len(depths) + ["compensated", "end"]
    for number, depth in enumerate(depths):
        measured, removed = listener.told[2 * number][1], listener.told[2 * number + 1][1]
        assert measured.set_losses == {one.removed: one.loss for one in depth.sets}
        assert removed.removed_blocks == depth.sets[0].removed  # which led before any compensation
        assert removed.block is None
    compensated, end = listener.told[-2][1], listener.told[-1][1]
    assert compensated.removed_blocks == end.removed_blocks == depths[-1].removed
    assert end.value == pytest.approx(stopped.report.perplexity_after)
    assert (end.step, end.stopped_early) == (len(depths), stop_after is not None)


@pytest.mark.long
@pytest.mark.parametrize("compensate", ["after", "every-block"])
@pytest.mark.parametrize("criterion", [None, "kl"])
def test_the_set_with_the_lowest_held_back_loss_is_chosen(compensate: str, criterion: str | None) -> None:
    report = prune(search_space="runs", beam_width=4, compensate=compensate, criterion=criterion).report
    *shallower, last = report.depths
    assert all(one.held_back_loss is None for depth in shallower for one in depth.sets)
    assert [one.held_back_loss is not None for one in last.sets] == [True] * 4 + [False] * (len(last.sets) - 4)
    held_back = {one.removed: one.held_back_loss for one in last.sets[:4]}
    assert last.removed == min(held_back, key=held_back.__getitem__) == report.removed_blocks
    assert report.compensation.held_back_loss == held_back[last.removed]
    assert report.compensation.cuts[0].loss_before >= held_back[last.removed]  # as it was without compensation
    # Each of them as if it had been compensated alone.
    model = tiny_model(num_hidden_layers=NUM_BLOCKS)
    windows = TokenWindows(tuple(IDS))
    if criterion is None:
        every_block = compensate == "every-block"
        with Compensator(
            *(model, find_decoder_stack(model), windows, torch.float32, Ranks.alone(), 1), every_block=every_block
        ) as compensator:
            for removed, loss in held_back.items():
                assert compensator.fit(removed).held_back_loss == pytest.approx(loss, rel=1e-4)


@pytest.mark.long
def test_the_weights_are_those_of_the_chosen_set() -> None:
    """Not of the one that was fitted last: the model is what the report says."""
    chosen_others = 0
    for seed in range(4):
        one = SLEBPruner(tiny_model(num_hidden_layers=NUM_BLOCKS, seed=seed))
        one.prune(num_blocks_to_remove=3, calibration=IDS, search_space="runs", compensate="every-block")
        last = one.report.depths[-1]
        chosen_others += last.removed != last.sets[3].removed
        with torch.no_grad():
            loss = sum(one.model(row[None], labels=row[None]).loss.item() * len(row) for row in IDS)
        assert loss == pytest.approx(last.compensated_loss, rel=1e-5)
    assert chosen_others


@pytest.mark.long
def test_a_quality_budget_ends_it() -> None:
    deep = prune(**RUNS, num_blocks_to_remove=5).report
    increases = [report.perplexity_after / deep.perplexity_before - 1 for report in map(deep.cut, range(1, 6))]
    depth = next(number for number in range(1, 5) if max(increases[:number]) < increases[number])
    allowed = (max(0.0, *increases[:depth]) + increases[depth]) / 2
    budgeted = prune(**RUNS, num_blocks_to_remove=None, max_perplexity_increase=allowed).report
    assert_same_depths(budgeted.depths, deep.depths[:depth])
    with pytest.raises(ConfigError, match="No block can be removed within"):
        prune(**RUNS, num_blocks_to_remove=None, max_perplexity_increase=1e-9, candidate_blocks="1")


@pytest.mark.long
@pytest.mark.parametrize("name", ["max_parameters", "max_memory"])
def test_a_target_ends_it(name: str) -> None:
    model = tiny_model(num_hidden_layers=NUM_BLOCKS)
    block = sum(parameter.numel() for parameter in model.model.layers[0].parameters())
    most = model.num_parameters() - 2 * block
    recipe = {**RUNS, "num_blocks_to_remove": None, "compensate": "after"}
    if name == "max_parameters":
        report = prune(**recipe, max_parameters=most).report
    else:
        report = prune(**recipe, max_memory=4 * most + 2 * (NUM_BLOCKS - 2) * 2 * 8 * 4, context_length=1).report
    assert len(report.removed_blocks) == len(report.depths) == 2
    assert report.target.reached <= report.target.asked


@pytest.mark.long
def test_what_is_compensated_meets_the_target_where_blocks_differ() -> None:
    """The cache of a block with full attention is larger than that of one with a sliding window."""
    left_out = 0
    for seed in range(4):
        one = SLEBPruner(tiny_model("gemma3", seed=seed))
        target = {"context_length": 100, "max_memory": one.model.get_memory_footprint() - 42_000}
        one.prune(calibration=IDS, search_space="runs", beam_width=4, compensate="after", **target)
        last = one.report.depths[-1]
        assert one.report.target.reached <= one.report.target.asked
        fitted = [place for place, of in enumerate(last.sets) if of.held_back_loss is not None]
        assert fitted
        left_out += len(fitted) < min(4, len(last.sets))
    assert left_out


@pytest.mark.long
def test_where_nothing_more_can_go_it_says_which_sets() -> None:
    def no_two_neighbours(model: Any, stack: Any, removed: set[int], **options: Any) -> str | None:
        return "neighbours" if any(block + 1 in removed for block in removed) else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("optimum_sleb.blocks.verify.reason_not_removable", no_two_neighbours)
        with pytest.warns(UserWarning, match="asked for were removed") as warned:
            report = prune(num_blocks_to_remove=4, **RUNS, compensate="after").report
        (message,) = [str(one.message) for one in warned if "asked for" in str(one.message)]
        assert report.removed_blocks == (1, 3, 5)
        assert message.startswith("3 of the 4 blocks asked for were removed: no 4 can go together (blocks ")
        assert "blocks 1-3,5: neighbours" in message
        assert message.count(": neighbours") <= 3
        assert report.depths[1].refused  # told as ranges
        assert len(report.depths) == 3


@pytest.mark.long
def test_a_model_that_was_pruned_so_is_pruned_again() -> None:
    recipe = {**RUNS, "criterion": "kl", "compensate": "every-block"}
    twice = prune(**recipe, num_blocks_to_remove=2)
    between, first = tuple(twice.blocks), twice.report
    twice.prune(SLEBConfig(num_blocks_to_remove=2, **recipe), calibration=IDS)
    report = twice.report
    assert report.previous == first
    assert report.blocks_before == between
    assert set(report.removed_blocks) == set(range(NUM_BLOCKS)) - set(twice.blocks)
    assert len(twice.blocks) == len(twice.model.model.layers) == NUM_BLOCKS - 4
    for depth in report.depths:  # neighbours are those of what was left
        for one in depth.sets:
            assert set(one.removed) <= set(between)
    assert any(between.index(one.removed[1]) == between.index(one.removed[0]) + 1 for one in report.depths[1].sets)
    assert PruningReport.from_dict(report.to_dict()) == report


@pytest.mark.long
@pytest.mark.parametrize(
    ("search", "criterion", "compensate"),
    [("exact", "kl", "no"), ("racing", None, "after"), ("exact", "kl", "every-block")],
)
def test_a_shallower_depth_is_the_search_that_ends_there(
    search: str, criterion: str | None, compensate: str, tmp_path: Path
) -> None:
    recipe = {"search_space": "runs", "compensate": compensate, "criterion": criterion, "search": search}
    deep, others = prune(**recipe), 0
    deep.report.save(tmp_path)
    for depth in (1, 2, 3):
        straight, applied = prune(**recipe, num_blocks_to_remove=depth), pruner()
        applied.apply(PruningReport.load(tmp_path), depth, calibration=IDS)
        assert applied.report.removed_blocks == straight.report.removed_blocks
        assert applied.model.config.sleb == straight.model.config.sleb
        assert same_weights(applied, straight)
        mine, theirs = timeless(applied.report), timeless(straight.report)
        assert (mine.depths, mine.steps, mine.compensation) == (theirs.depths, theirs.steps, theirs.compensation)
        assert PruningReport.from_dict(applied.report.to_dict()) == applied.report
        others += deep.report.depths[depth - 1].removed != applied.report.removed_blocks
    assert bool(others) == (compensate != "no")
    again = pruner()
    again.apply(applied.report, calibration=IDS)
    assert same_weights(again, straight)
    assert timeless(again.report).depths == timeless(straight.report).depths


@pytest.mark.long
def test_what_cannot_be_applied_leaves_the_model_as_it_was() -> None:
    report = prune(search_space="runs", compensate="after").report
    *depths, last = report.depths
    with_barrier = replace(last.sets[1], removed=(1, 2, 6))  # in a report that was written by hand

    def no_last_block(model: Any, stack: Any, removed: set[int], **options: Any) -> str | None:
        return "it is the last" if 6 in removed else None

    forged = replace(report, depths=(*depths, replace(last, sets=(last.sets[0], with_barrier), removed=(1, 2, 6))))
    forged = replace(forged, steps=tuple(map(type(report.steps[0]), (1, 2, 6))))
    one = pruner()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UnsupportedModelError, match="it is the last"):
        patch.setattr("optimum_sleb.blocks.verify.reason_not_removable", no_last_block)
        one.apply(forged, calibration=IDS)
    with pytest.raises(CalibrationError, match="are not those of the search"):
        one.apply(report, 2, calibration=IDS[:9])
    assert same_weights(one, pruner())
    assert one.blocks == tuple(range(NUM_BLOCKS))
    assert one._report is None


@pytest.mark.parametrize("more", [{}, {"beam_width": 2}], ids=["greedy", "sets"])
def test_one_block_is_left_whatever_the_budget(more: dict[str, Any]) -> None:
    pruner = SLEBPruner(tiny_model(num_hidden_layers=3))
    pruner.prune(
        SLEBConfig(max_perplexity_increase=1e9, early_barrier=0, latter_barrier=0, **more),
        calibration=random_ids(2, 12),
    )
    assert len(pruner.blocks) == 1
