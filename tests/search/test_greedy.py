import pytest
import torch

from optimum_sleb.config import SLEBConfig, candidates_of
from optimum_sleb.errors import NonFiniteLossError
from optimum_sleb.search.candidate_losses import StepLosses
from optimum_sleb.search.greedy import Refusals, Step, greedy_removals

from .. import mishaps


class Table:
    """Losses out of a table: what the model loses without a set of blocks."""

    def __init__(self, loss_of: dict[frozenset[int], float]) -> None:
        self.loss_of = loss_of
        self.asked: list[tuple[list[int], list[int]]] = []

    def __call__(self, alive, candidates):
        self.asked.append((list(alive), list(candidates)))
        gone = frozenset(range(5)) - frozenset(alive)
        rows = [self.loss_of.get(gone | {candidate}, 100.0) for candidate in candidates]
        losses = torch.tensor(rows)[:, None].repeat(1, 2) / 2  # two windows
        return StepLosses(dict(zip(candidates, losses, strict=True)))


def run(measure, refuse=lambda gone: None, **options) -> list[Step]:
    """Remove all that can go; `refuse` says why a set of blocks cannot go together."""
    options = {"early_barrier": 1, "latter_barrier": 1, "removable": range(5)} | options
    recipe = SLEBConfig(sparsity=0.2, early_barrier=options["early_barrier"], latter_barrier=options["latter_barrier"])
    candidates = [block for block in candidates_of(recipe, range(5)) if block in options["removable"]]
    return list(greedy_removals(measure, 5, candidates=candidates, refusals=Refusals(refuse)))


def test_every_removal_is_measured_on_the_model_as_it_is_by_then() -> None:
    # Alone, 1 hurts least and 2 comes next; but without 1, block 3 hurts less than 2.
    table = Table({frozenset({1}): 1.0, frozenset({2}): 2.0, frozenset({1, 3}): 3.0, frozenset({1, 2}): 4.0})
    steps = run(table)
    assert [step.block for step in steps] == [1, 3, 2]
    assert [step.loss for step in steps][:2] == [1.0, 3.0]
    assert table.asked == [
        ([0, 1, 2, 3, 4], [1, 2, 3]),
        ([0, 2, 3, 4], [2, 3]),
        ([0, 2, 4], [2]),
    ]


def test_ties_go_to_the_lowest_index() -> None:
    assert run(Table({}))[0].block == 1


def test_barriers_count_in_the_remaining_stack() -> None:
    table = Table({})
    run(table, early_barrier=0, latter_barrier=2)
    assert [candidates for _, candidates in table.asked] == [[0, 1, 2], [1, 2], [2]]


def test_only_removable_blocks_are_candidates() -> None:
    table = Table({})
    assert [step.block for step in run(table, removable=[2, 4])] == [2]


def test_nothing_is_measured_beyond_the_removals_that_are_asked_for() -> None:
    table = Table({frozenset({2}): 1.0})
    removals = greedy_removals(table, 5, candidates=range(1, 4), refusals=Refusals(lambda gone: None))
    assert next(removals).block == 2
    assert len(table.asked) == 1


@mishaps.loss_that_is_not_finite
def test_a_candidate_whose_loss_is_not_finite_is_out_and_told() -> None:
    def measure(alive, candidates):
        losses = torch.ones(len(candidates), 4)
        if len(candidates) == 3:  # in the first step
            losses[0, 3] = float("nan")
        return StepLosses(dict(zip(candidates, losses, strict=True)))

    first, second, _ = run(measure)
    assert (first.block, first.non_finite) == (2, {1: 3})
    assert set(first.losses) == {2, 3}
    assert (second.block, second.non_finite) == (1, {})  # without block 2 it is as good as any other


@mishaps.loss_that_is_not_finite
def test_where_no_loss_is_finite_the_search_ends() -> None:
    def measure(alive, candidates):
        losses = torch.full((len(candidates), 4), float("inf"))
        return StepLosses(dict(zip(candidates, losses, strict=True)))

    with pytest.raises(NonFiniteLossError, match="whichever block is removed .without block 1 in window 0"):
        run(measure)


class Racers(Table):
    """As a table, but only the best candidate is known; the others left the race."""

    def __call__(self, alive, candidates):
        measured = super().__call__(alive, candidates)
        best = min(candidates, key=measured.sums().__getitem__)
        return StepLosses({best: measured.losses[best]}, {block: 4 for block in candidates if block != best})


def test_where_the_winner_of_a_race_is_refused_the_others_run_again() -> None:
    losses = {frozenset({1}): 1.0, frozenset({3}): 2.0, frozenset({2}): 3.0}
    races = Racers(losses)
    step = run(races, refuse=lambda gone: "no" if gone & {1, 3} else None)[0]
    assert (step.block, step.loss, step.barred, step.dropped) == (2, 3.0, {1: "no", 3: "no"}, {})
    assert [candidates for _, candidates in races.asked][:3] == [[1, 2, 3], [2, 3], [2]]
    table = Table(losses)
    assert run(table, refuse=lambda gone: "no" if gone & {1, 3} else None)[0].block == 2
    assert len(table.asked) == 1  # all losses were known at once


class Odd(Table):
    """As a table, but without some blocks the loss is NaN."""

    def __init__(self, loss_of: dict[frozenset[int], float], odd: set[int], racing: bool) -> None:
        super().__init__(loss_of)
        self.odd, self.racing = odd, racing

    def __call__(self, alive, candidates):
        losses = super().__call__(alive, candidates).losses
        best = min((block for block in losses if block not in self.odd), key=lambda block: losses[block][0], default=0)
        dropped = {block: 4 for block in losses if self.racing and block not in self.odd | {best}}
        odd = {block: losses[block] * float("nan") for block in losses if block in self.odd}
        return StepLosses({block: row for block, row in losses.items() if block not in dropped} | odd, dropped)


@pytest.mark.parametrize("racing", [False, True])
def test_where_all_are_refused_but_those_whose_loss_is_not_finite_the_search_ends(racing: bool) -> None:
    table = Odd({frozenset({2}): 1.0}, odd={3}, racing=racing)
    steps = run(table, refuse=lambda gone: "no" if len(gone) > 1 else None)
    assert [step.block for step in steps] == [2]
    assert run(table, refuse=lambda gone: "no") == []
    # Also where they were refused in an earlier step.
    table = Odd({frozenset({1}): 1.0, frozenset({2}): 2.0}, odd={3}, racing=racing)
    steps = run(table, refuse=lambda gone: "no" if 1 in gone else None)
    assert [(step.block, step.barred, step.non_finite) for step in steps] == [(2, {1: "no"}, {3: 0})]


def test_where_no_loss_is_finite_and_none_was_refused_the_search_fails() -> None:
    with pytest.raises(NonFiniteLossError, match="whichever block is removed .without block 1"):
        run(Odd({frozenset({2}): 1.0}, odd={1, 3}, racing=False))


def test_candidates_given_up_for_one_whose_loss_is_not_finite_in_the_end_run_again() -> None:
    def measure(alive, candidates):
        if 1 in candidates:  # it led the race until the last window
            return StepLosses({1: torch.tensor([0.5, float("nan")])}, {2: 4, 3: 4})
        return StepLosses({block: torch.full((2,), float(block)) for block in candidates})

    step = run(measure)[0]
    assert (step.block, step.loss, step.non_finite, step.dropped) == (2, 4.0, {1: 1}, {})
