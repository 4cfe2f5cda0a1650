"""Racing: the exact search's decisions for less work, on losses whose distribution is known and on real ones."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimum_sleb import SLEBConfig, SLEBPruner
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.runtime.ranks import Ranks
from optimum_sleb.search.candidate_losses import Stack, StepLosses
from optimum_sleb.search.exact import ExactLosses
from optimum_sleb.search.racing import Race

from .. import mishaps
from ..families import NUM_BLOCKS, random_ids, tiny_model

NUM_WINDOWS = 64


class Recorded:
    """Losses that were measured before, of shape (candidates, windows); counts how many are looked at."""

    def __init__(self, losses: torch.Tensor) -> None:
        self.losses = losses
        # The first token of a window is its number.
        self.windows = TokenWindows(tuple(torch.tensor([number, 0]) for number in range(losses.shape[1])))
        self.batch_size = 1
        self.ranks = Ranks.alone()
        self.looked_at = 0
        self.progress = 0

    def measure(self, alive: Sequence[int], candidates: Sequence[int], windows: TokenWindows) -> StepLosses:
        columns = [int(window[0]) for window in windows.windows]
        self.looked_at += len(candidates) * len(columns)
        self.on_progress(len(candidates) * len(columns))
        return StepLosses(dict(zip(candidates, self.losses[candidates][:, columns], strict=True)))

    def measure_stacks(self, stacks: Sequence[Stack], windows: TokenWindows, names: Sequence[int]) -> StepLosses:
        """The only block of a stack is its row."""
        measured = self.measure(names, [row for (row,) in stacks], windows).losses.values()
        return StepLosses(dict(zip(names, measured, strict=True)))

    def on_progress(self, pairs: int) -> None:
        self.progress += pairs


def recorded(gaps: Sequence[float], seed: int = 0, noise: float = 0.1) -> Recorded:
    """Windows differ widely in difficulty, which is common to all candidates; their own noise is small."""
    generator = torch.Generator().manual_seed(seed)
    difficulty = 3 + torch.rand(NUM_WINDOWS, generator=generator) * 3
    own = torch.randn(len(gaps), NUM_WINDOWS, generator=generator) * noise
    return Recorded(difficulty + torch.tensor(gaps)[:, None] + own)


def race(measure: Recorded, confidence: float = 5.0, seed: int = 0):
    candidates = list(range(len(measure.losses)))
    return Race(measure, confidence, seed).measure(candidates, candidates)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), order=st.integers(0, 1000), size=st.integers(2, 12))
def test_the_winner_is_that_of_all_windows(seed: int, order: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    measure = recorded((torch.rand(size, generator=generator) * 0.5).tolist(), seed)
    result = race(measure, seed=order)
    sums = result.sums()
    assert min(sums, key=sums.__getitem__) == measure.losses.sum(dim=1).argmin()
    for block, losses in result.losses.items():
        assert losses.equal(measure.losses[block])


def race_stacks(measure: Recorded, num_kept: int, confidence: float = 5.0, seed: int = 0):
    return Race(measure, confidence, seed).measure_stacks([(row,) for row in range(len(measure.losses))], num_kept)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), order=st.integers(0, 1000), size=st.integers(2, 20), num_kept=st.integers(1, 5))
def test_the_leading_stacks_are_those_of_all_windows(seed: int, order: int, size: int, num_kept: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    measure = recorded((torch.rand(size, generator=generator) * 0.5).tolist(), seed)
    result = race_stacks(measure, num_kept, seed=order)
    sums = result.sums()
    expected = measure.losses.double().sum(dim=1).sort(stable=True).indices[:num_kept].tolist()
    assert sorted(sums, key=sums.__getitem__)[:num_kept] == expected
    assert set(result.losses) | set(result.dropped) == set(range(size))
    for row, losses in result.losses.items():
        assert losses.equal(measure.losses[row])
    assert measure.progress == size * NUM_WINDOWS


@pytest.mark.parametrize("size", [2, 3, 4])
def test_several_processes_drop_what_one_does(size: int) -> None:
    alone, together = recorded([0.0, 0.02, 0.04, 0.06, 0.1, 3.0]), recorded([0.0, 0.02, 0.04, 0.06, 0.1, 3.0])
    alone.batch_size = together.batch_size = 4
    together.ranks.size = size
    dropped = race(alone).dropped
    assert any(windows % 8 for windows in dropped.values())
    assert race(together).dropped == dropped


def test_one_leader_races_as_blocks_do() -> None:
    blocks, stacks = recorded([0.0, 0.05, 0.1, 2.0, 3.0]), recorded([0.0, 0.05, 0.1, 2.0, 3.0])
    assert race(blocks).dropped == race_stacks(stacks, 1).dropped
    assert blocks.looked_at == stacks.looked_at


def test_stacks_leave_when_they_are_behind_the_last_leader() -> None:
    gaps = [0.0, 1.0, 1.01, 3.0, 4.0]
    result = race_stacks(recorded(gaps), 2)
    assert {0, 1} <= set(result.losses)
    assert (result.dropped[3], result.dropped[4], result.dropped.get(2, NUM_WINDOWS) > 8) == (8, 8, True)
    assert race_stacks(recorded(gaps), 5).dropped == {}


@mishaps.loss_that_is_not_finite
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("num_kept", [1, 2, 3])
def test_a_stack_whose_loss_is_not_finite_takes_no_place_of_a_leader(value: float, num_kept: int) -> None:
    measure = recorded([0.0, 0.3, 0.0, 0.6, 3.0])
    measure.losses[2] = value
    result = race_stacks(measure, num_kept)
    assert result.non_finite == {2: 0}
    assert set(result.sums()) >= set([0, 1, 3][:num_kept])
    assert 4 in result.dropped


def test_those_far_behind_leave_at_the_first_look() -> None:
    measure = recorded([0.0, 0.01, 2.0, 3.0])
    result = race(measure)
    assert result.dropped == {2: 8, 3: 8}
    assert set(result.losses) == {0, 1}
    assert measure.looked_at == 4 * 8 + 2 * (NUM_WINDOWS - 8)
    assert measure.progress == 4 * NUM_WINDOWS  # spared work counts as done


def test_equal_candidates_are_compared_on_all_windows() -> None:
    losses = recorded([0.0]).losses
    result = race(Recorded(losses.repeat(3, 1)))
    assert result.dropped == {}
    assert len(result.losses) == 3


def test_a_single_candidate_is_measured_in_one_go() -> None:
    measure = recorded([0.0])
    assert race(measure).losses[0].equal(measure.losses[0])


def test_more_confidence_is_more_work() -> None:
    gaps = [0.0, 0.02, 0.05, 0.1, 0.2]
    bold, careful = recorded(gaps), recorded(gaps)
    race(bold, confidence=2.0)
    race(careful, confidence=20.0)
    assert bold.looked_at < careful.looked_at


def test_fewer_windows_than_a_look() -> None:
    measure = Recorded(recorded([0.0, 5.0]).losses[:, :3])
    assert set(race(measure).losses) == {0, 1}


@mishaps.loss_that_is_not_finite
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_candidate_whose_loss_is_not_finite_is_told(value: float) -> None:
    measure = recorded([0.0, 0.3, 0.0])
    measure.losses[2, 5] = value
    result = race(measure, seed=1)
    assert set(result.sums()) == {0}
    assert result.non_finite == {2: 5}


@mishaps.loss_that_is_not_finite
def test_where_no_loss_is_finite_nobody_wins() -> None:
    measure = recorded([0.0, 0.3])
    measure.losses[:, 5] = float("nan")
    assert race(measure).sums() == {}


@pytest.mark.long
def test_the_same_removals_as_exact_on_a_model() -> None:
    reports = {}
    for search in ("exact", "racing"):
        pruner = SLEBPruner(tiny_model("llama"))
        config = SLEBConfig(num_blocks_to_remove=3, search=search, batch_size=2)
        pruner.prune(config, calibration=random_ids(24, 16))
        reports[search] = pruner.report
    exact, racing = reports["exact"], reports["racing"]
    assert racing.removed_blocks == exact.removed_blocks
    assert racing.search.method == "racing"
    assert racing.search.exact_block_passes == exact.search.block_passes
    assert racing.search.block_passes <= exact.search.block_passes
    for step, exact_step in zip(racing.steps, exact.steps, strict=True):
        assert step.loss == pytest.approx(exact_step.loss, rel=1e-5)
        assert set(step.candidate_losses) | set(step.dropped_blocks) == set(exact_step.candidate_losses)


def test_windows_of_different_lengths() -> None:
    model = tiny_model("llama")
    stack = find_decoder_stack(model)
    windows = TokenWindows((*random_ids(6, 20), *random_ids(7, 11)))
    measure = ExactLosses(model, stack, windows, batch_size=4)
    alive, candidates = range(NUM_BLOCKS), range(1, NUM_BLOCKS - 1)
    result = Race(measure, 5.0, 0).measure(alive, candidates)
    everything = ExactLosses(model, stack, windows).measure(alive, candidates).matrix
    for block, losses in result.losses.items():
        torch.testing.assert_close(losses, everything[block - 1])
