"""Memory that runs out at any moment changes nothing but the batch size."""

import weakref
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimum_sleb import SLEBError
from optimum_sleb.blocks.offload import offloaded
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.calibration.batching import run_in_batches
from optimum_sleb.calibration.windows import TokenWindows, WindowBatch
from optimum_sleb.errors import OutOfMemoryError
from optimum_sleb.search.exact import ExactLosses
from optimum_sleb.search.layerwise import LayerwiseLosses
from optimum_sleb.search.reference import ReferenceLosses

from ..families import NUM_BLOCKS, random_ids, tiny_model
from ..runtime.test_memory import FULL

many, some = settings(max_examples=100, deadline=None), settings(max_examples=15, deadline=None)
WINDOWS = TokenWindows(tuple(torch.tensor([number, 0]) for number in range(13)))


@pytest.mark.reliability("memory runs out at every batch size", lost="every window is measured once")
@pytest.mark.tries(many.max_examples)
@many
@given(batch_size=st.integers(1, 20), fits=st.integers(1, 20))
def test_every_window_once(batch_size: int, fits: int) -> None:
    seen: list[int] = []

    def run(batch: WindowBatch) -> None:
        if len(batch) > fits:
            raise torch.OutOfMemoryError
        assert batch.ids[:, 0].tolist() == list(range(13))[batch.span]
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


def test_the_remedy_where_blocks_are_brought_one_at_a_time() -> None:
    def run(batch: WindowBatch) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(OutOfMemoryError, match="fewer candidates.*early_barrier") as error:
        run_in_batches(WINDOWS.batches(4), run, block_by_block=True)
    assert "offload" not in str(error.value)


@pytest.mark.parametrize("offload", [False, True])
def test_the_remedy_follows_the_stack(offload: bool) -> None:
    model = tiny_model("llama")
    stack = find_decoder_stack(model)
    with offloaded(model, stack, torch.device("cpu")) if offload else nullcontext(stack) as there:
        measure = LayerwiseLosses(model, there, WINDOWS, batch_size=4)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("optimum_sleb.blocks.runner.BlockRunner.run", full)
            with pytest.raises(OutOfMemoryError, match="early_barrier" if offload else "offload='cpu'"):
                measure.measure(range(NUM_BLOCKS), [2, 3])


def test_what_a_failed_attempt_held_is_free_before_the_next() -> None:
    held: list[weakref.ref] = []

    def run(batch: WindowBatch) -> None:
        assert not any(tensor() is not None for tensor in held)
        state = torch.zeros(8)
        held.append(weakref.ref(state))
        if len(batch) > 2:
            raise torch.OutOfMemoryError

    run_in_batches(WINDOWS.batches(8), run)


def full(*_: object, **__: object) -> None:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)")


def test_other_errors_are_not_swallowed() -> None:
    def run(batch: WindowBatch) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_in_batches(WINDOWS.batches(4), run)


@pytest.mark.long
@pytest.mark.reliability(
    "memory runs out at random blocks of a step: exact and reference search",
    lost="nothing: the losses are the same, in smaller batches",
)
@pytest.mark.tries(some.max_examples)
@some
@given(
    failures=st.lists(st.integers(0, 60), max_size=3, unique=True),
    kind=st.sampled_from([ExactLosses, ReferenceLosses]),
    error=st.sampled_from(FULL),
)
def test_a_search_step_survives_failures_at_any_block(failures: list[int], kind: type, error: Exception) -> None:
    model = tiny_model("llama")
    stack = find_decoder_stack(model)
    windows = TokenWindows(tuple(random_ids(8, 12)))
    alive, candidates = range(NUM_BLOCKS), range(1, NUM_BLOCKS - 1)
    expected = kind(model, stack, windows).measure(alive, candidates).matrix
    calls = 0

    def fail_sometimes(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls - 1 in failures:
            raise error

    for block in stack.blocks:
        block.register_forward_pre_hook(fail_sometimes)
    measure = kind(model, stack, windows, batch_size=8)
    torch.testing.assert_close(measure.measure(alive, candidates).matrix, expected)
    assert measure.batch_size == 8 // 2 ** min(len([f for f in failures if f < calls]), 3)
