"""Memory that runs out at any moment changes nothing but the batch size."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimum_sleb import SLEBError
from optimum_sleb.batching import run_in_batches
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows, WindowBatch
from optimum_sleb.errors import OutOfMemoryError
from optimum_sleb.search.exact import ExactLosses
from optimum_sleb.search.reference import ReferenceLosses

from .families import NUM_BLOCKS, random_ids, tiny_model

many, some = settings(max_examples=100, deadline=None), settings(max_examples=15, deadline=None)
WINDOWS = TokenWindows(tuple(torch.tensor([number, 0]) for number in range(13)))


@pytest.mark.tries(many.max_examples)
@many
@given(batch_size=st.integers(1, 20), fits=st.integers(1, 20))
def test_every_window_once(batch_size: int, fits: int) -> None:
    seen: list[int] = []

    def run(batch: WindowBatch) -> None:
        if len(batch) > fits:
            raise torch.OutOfMemoryError
        assert batch.ids[:, 0].tolist() == list(range(13))[batch.place]
        seen.extend(batch.ids[:, 0].tolist())

    final = run_in_batches(WINDOWS.batches(batch_size), run)
    assert sorted(seen) == list(range(13))
    assert final is None if min(batch_size, 13) <= fits else 1 <= final <= fits


def test_once_halved_it_stays_halved() -> None:
    sizes: list[int] = []

    def run(batch: WindowBatch) -> None:
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError

    assert run_in_batches(WINDOWS.batches(6), run) == 3
    assert sizes == [6, 3, 3, 3, 3, 1]


def test_a_single_window_that_does_not_fit() -> None:
    def run(batch: WindowBatch) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(OutOfMemoryError, match="single window of 2 tokens; choose a smaller window_length"):
        run_in_batches(WINDOWS.batches(4), run)
    assert issubclass(OutOfMemoryError, SLEBError)


def test_other_errors_are_not_swallowed() -> None:
    def run(batch: WindowBatch) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_in_batches(WINDOWS.batches(4), run)


@pytest.mark.tries(some.max_examples)
@some
@given(
    failures=st.lists(st.integers(0, 60), max_size=3, unique=True),
    kind=st.sampled_from([ExactLosses, ReferenceLosses]),
)
def test_a_search_step_survives_failures_at_any_block(failures: list[int], kind: type) -> None:
    model = tiny_model("llama")
    stack = find_decoder_stack(model)
    windows = TokenWindows(tuple(random_ids(8, 12)))
    alive, candidates = range(NUM_BLOCKS), range(1, NUM_BLOCKS - 1)
    expected = kind(model, stack, windows)(alive, candidates)
    calls = 0

    def fail_sometimes(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls - 1 in failures:
            raise torch.OutOfMemoryError

    for block in stack.blocks:
        block.register_forward_pre_hook(fail_sometimes)
    measure = kind(model, stack, windows, batch_size=8)
    torch.testing.assert_close(measure(alive, candidates), expected)
    assert measure.batch_size == 8 // 2 ** min(len([f for f in failures if f < calls]), 3)
