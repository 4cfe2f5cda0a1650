"""The search over sets of blocks, on tables of losses, against a brute force that looks at all sets of a size."""

import random
from collections.abc import Callable, Sequence
from itertools import combinations, islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimum_sleb.errors import NonFiniteLossError
from optimum_sleb.search.beam import BlockSet, Depth, beam_depths
from optimum_sleb.search.candidate_losses import Stack, StepLosses
from optimum_sleb.search.cost import shared_block_passes
from optimum_sleb.search.greedy import Refusals, greedy_removals

from .. import mishaps

NUM_BLOCKS = 7
CANDIDATES = (1, 2, 3, 5)  # 4 is barred: no run crosses it
NAN = float("nan")


class Table:
    """Losses out of a table, by the set of blocks that is gone. A race drops all but the best `num_kept`, and those
    whose loss is not finite: of these it does not know that they are behind."""

    def __init__(self, loss_of: dict[BlockSet, float], racing: bool = False) -> None:
        self.loss_of, self.racing = loss_of, racing
        self.asked: list[list[BlockSet]] = []

    def measure(self, gone: Sequence[BlockSet], num_kept: int) -> StepLosses:
        self.asked.append(list(gone))
        losses = {row: torch.full((2,), self.loss_of[one] / 2) for row, one in enumerate(gone)}
        finite = sorted((row for row in losses if losses[row].isfinite().all()), key=lambda row: float(losses[row][0]))
        dropped = dict.fromkeys(finite[num_kept:], 4) if self.racing else {}
        return StepLosses({row: one for row, one in losses.items() if row not in dropped}, dropped)

    def of_stacks(self, stacks: Sequence[Stack], num_kept: int) -> StepLosses:
        return self.measure([gone_of(stack) for stack in stacks], num_kept)

    def of_candidates(self, alive: Sequence[int], candidates: Sequence[int]) -> StepLosses:
        measured = self.measure([gone_of([one for one in alive if one != block]) for block in candidates], 1)
        losses = {candidates[row]: losses for row, losses in measured.losses.items()}
        return StepLosses(losses, {candidates[row]: windows for row, windows in measured.dropped.items()})


def gone_of(stack: Sequence[int]) -> BlockSet:
    return tuple(block for block in range(NUM_BLOCKS) if block not in stack)


def random_table(seed: int, distinct: int, non_finite: float = 0.0, racing: bool = False) -> Table:
    """Losses of all sets, many of them the same where `distinct` is small; of some sets NaN."""
    drawn = random.Random(seed)
    sets = [one for size in range(1, len(CANDIDATES) + 1) for one in combinations(CANDIDATES, size)]
    losses = {one: NAN if drawn.random() < non_finite else float(drawn.randrange(1, distinct + 1)) for one in sets}
    return Table(losses, racing)


def run(table: Table, width: int, with_runs: bool, why_not: Callable[[set[int]], str | None] = lambda gone: None):
    options = {"candidates": CANDIDATES, "width": width, "with_runs": with_runs, "why_not": why_not}
    return list(beam_depths(table.of_stacks, NUM_BLOCKS, **options))


def brute_force(
    loss_of: dict[BlockSet, float],
    width: int,
    with_runs: bool,
    why_not: Callable[[set[int]], str | None] = lambda gone: None,
) -> list[list[BlockSet]]:
    """Ask of every set of a size whether it is in the pool, can go, and has few better ones."""
    kept, depths = [()], []
    for size in range(1, max(map(len, loss_of)) + 1):
        ranked = []
        for one in (one for one in loss_of if len(one) == size):
            grown = any(set(less) < set(one) for less in kept)
            is_run = one[-1] - one[0] == size - 1
            loss = loss_of[one]
            if (grown or (with_runs and is_run)) and loss == loss and why_not(set(one)) is None:
                ranked.append((loss, one))
        kept = [one for _, one in sorted(ranked)[:width]]
        if not kept:
            break
        depths.append(kept)
    return depths


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    distinct=st.sampled_from([2, 5, 1000]),
    width=st.integers(1, 5),
    with_runs=st.booleans(),
    racing=st.booleans(),
    refused=st.sets(st.sampled_from([(1,), (2, 3), (1, 5), (2, 5), (1, 2, 3)])),
)
def test_each_depth_keeps_the_best_of_its_pool(
    seed: int, distinct: int, width: int, with_runs: bool, racing: bool, refused: set[BlockSet]
) -> None:
    table = random_table(seed, distinct, non_finite=0.2, racing=racing)
    table.loss_of |= dict.fromkeys([(2,), (2, 3), (1, 2, 3), (1, 2, 3, 5)], 2.0)  # so that it does not fail

    def why_not(gone: set[int]) -> str | None:
        return "no" if any(set(one) <= gone for one in refused - {(2,)}) else None

    try:
        depths = run(table, width, with_runs, why_not)
    except NonFiniteLossError:
        depths = []
        assert not with_runs, "2, 2-3 and 1-3 are runs and finite"
    expected = brute_force(table.loss_of, width, with_runs, why_not)
    assert [list(depth.kept) for depth in depths if depth.kept] == expected[: len(depths)]
    assert all(depth.kept for depth in depths[:-1])
    for depth in depths:
        # Every set of the pool is accounted for once, and so is the work of measuring it.
        measured = {one for one in depth.losses if one not in depth.refused}
        assert not measured & set(depth.non_finite)
        told = len(measured) + len(depth.refused) + len(depth.non_finite) + depth.num_dropped
        assert told == len(depth.stacks) == len(set(depth.stacks))
        assert all(depth.losses[one] == table.loss_of[one] for one in depth.losses)
        if depth.kept:
            assert depth.loss == min(table.loss_of[one] for one in measured)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    distinct=st.sampled_from([2, 1000]),
    racing=st.booleans(),
    non_finite=st.sampled_from([0.0, 0.3]),
    refused=st.sets(st.sampled_from([(1,), (2, 3), (1, 5), (2, 5), (1, 2, 3)])),
)
def test_of_width_one_without_runs_it_is_the_published_algorithm(
    seed: int, distinct: int, racing: bool, non_finite: float, refused: set[BlockSet]
) -> None:
    table = random_table(seed, distinct, non_finite, racing)

    def why_not(gone: set[int]) -> str | None:
        return "no" if any(set(one) <= gone for one in refused) else None

    steps, depths, failed = [], [], []
    for found, search in (
        (steps, greedy_removals(table.of_candidates, NUM_BLOCKS, candidates=CANDIDATES, refusals=Refusals(why_not))),
        (
            depths,
            beam_depths(table.of_stacks, NUM_BLOCKS, candidates=CANDIDATES, width=1, with_runs=False, why_not=why_not),
        ),
    ):
        try:
            found.extend(search)
        except NonFiniteLossError:
            failed.append(found)
    depths = [depth for depth in depths if depth.kept]
    removed = [tuple(sorted(step.block for step in steps[:number])) for number in range(1, len(steps) + 1)]
    assert [depth.kept for depth in depths] == [(one,) for one in removed]
    assert [depth.loss for depth in depths] == [step.loss for step in steps]
    assert len(failed) in ((0, 2) if not refused else (0, 1, 2))  # greedy remembers refusals of earlier steps


def test_runs_stand_between_barriers_and_of_candidates_only() -> None:
    table = random_table(0, 1000)
    run(table, width=1, with_runs=True)
    assert table.asked[0] == [(1,), (2,), (3,), (5,)]
    assert {(1, 2), (2, 3)} <= set(table.asked[1])
    assert (1, 2, 3) in table.asked[2]
    assert not any(4 in one or 0 in one or 6 in one for pool in table.asked for one in pool)
    for pool in table.asked:
        assert pool == sorted(set(pool))
    # A run that no kept set leads to is found all the same.
    table = Table({**random_table(0, 1000).loss_of, (5,): 0.0, (1, 2, 3): -1.0})
    assert run(table, width=1, with_runs=True)[2].kept == ((1, 2, 3),)
    assert run(table, width=1, with_runs=False)[2].kept != ((1, 2, 3),)


def test_nothing_is_measured_beyond_the_depths_that_are_asked_for() -> None:
    table = random_table(0, 1000)
    depths = beam_depths(
        table.of_stacks, NUM_BLOCKS, candidates=CANDIDATES, width=2, with_runs=True, why_not=lambda gone: None
    )
    assert len(list(islice(depths, 2))) == len(table.asked) == 2


def test_a_refused_leader_of_a_race_lets_the_others_run_again() -> None:
    losses = {(1,): 1.0, (2,): 2.0, (3,): 3.0, (5,): 4.0}
    for racing in (False, True):
        table = Table(losses, racing)
        depth = next(
            beam_depths(
                table.of_stacks,
                NUM_BLOCKS,
                candidates=CANDIDATES,
                width=2,
                with_runs=True,
                why_not=lambda gone: "no" if gone == {1} else None,
            )
        )
        assert depth.kept == ((2,), (3,))
        assert depth.refused == {(1,): "no"}
        assert depth.num_dropped == racing
        assert len(table.asked) == 1 + racing
        assert len(depth.stacks) == 4
        assert shared_block_passes(depth.stacks) > shared_block_passes(depth.stacks[1:])


@mishaps.loss_that_is_not_finite
def test_sets_given_up_for_one_whose_loss_is_not_finite_in_the_end_run_again() -> None:
    def measure(stacks: Sequence[Stack], num_kept: int) -> StepLosses:
        if len(stacks) == 4:  # block 1 led until the last window
            return StepLosses({0: torch.tensor([0.5, NAN]), 1: torch.ones(2)}, {2: 4, 3: 4})
        return StepLosses({row: torch.full((2,), float(row)) for row in range(len(stacks))})

    def first(width: int) -> Depth:
        options = {"candidates": CANDIDATES, "width": width, "with_runs": False, "why_not": lambda gone: None}
        return next(beam_depths(measure, NUM_BLOCKS, **options))

    assert first(2).kept == ((2,), (3,))
    assert (first(2).non_finite, first(2).num_dropped) == ({(1,): 1}, 0)
    assert (first(1).kept, first(1).num_dropped) == (((2,),), 2)  # the best is there


@mishaps.loss_that_is_not_finite
def test_where_no_loss_is_finite_the_search_fails_and_names_a_set() -> None:
    table = Table(dict.fromkeys(random_table(0, 5).loss_of, NAN) | {(2,): 1.0})
    with pytest.raises(NonFiniteLossError, match=r"\(without blocks 1-2 in window 0\)"):
        run(table, width=4, with_runs=True)
    # Where others were refused, it ends.
    last = run(Table(table.loss_of | {(2, 3): 1.0}), 4, True, lambda gone: "no" if len(gone) > 1 else None)[-1]
    assert (last.kept, last.refused) == ((), {(2, 3): "no"})
    assert set(last.non_finite) == {(1, 2), (2, 5)}
