"""Memory that runs out while cuts are compensated changes nothing but the batch size."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from optimum_sleb import SLEBConfig, SLEBPruner
from optimum_sleb.blocks.offload import offloaded
from optimum_sleb.blocks.runner import BlockRunner
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.compensation import matrices
from optimum_sleb.compensation.changes import ChangedWeights
from optimum_sleb.compensation.compensator import Compensator
from optimum_sleb.compensation.moments import Moments
from optimum_sleb.errors import OutOfMemoryError
from optimum_sleb.report.records import CompensationRecord
from optimum_sleb.runtime.ranks import Ranks
from optimum_sleb.search.compensating import compensate
from optimum_sleb.search.exact import ExactLosses

from ..families import random_ids, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOWS = TokenWindows(tuple(random_ids(12, 16)))
REMOVED = {2, 4}
# Where it can run out, and about how often a fit comes by.
PLACES: dict[str, tuple[Any, str, int]] = {
    "a pass through blocks": (BlockRunner, "run", 120),
    "moments": (Moments, "add", 12),
    "the choice of a matrix": (matrices, "choose_matrix", 2),
    "a loss": (BlockRunner, "losses", 40),
    "writing a weight": (ChangedWeights, "write", 40),
    "keeping a weight": (ChangedWeights, "put", 20),
}


@contextmanager
def failing(owner: Any, name: str, fails: Callable[[int], bool], error: Exception) -> Iterator[list[int]]:
    """Some calls of a function fail, by their number."""
    real, calls = getattr(owner, name), [0]

    def call(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if fails(calls[0] - 1):
            raise error
        return real(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, call)
        yield calls


def fit(
    offload: bool = False, batch_size: int = 8, trouble: AbstractContextManager[Any] | None = None
) -> tuple[CompensationRecord, dict[str, torch.Tensor], int]:
    """What a fit gives, and the batch size that it ends with; the model must be left as it was.

    Trouble is made in the fit alone: closing the compensator writes weights in place, which takes no memory.
    """
    model = tiny_model("llama")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stack = find_decoder_stack(model)
    try:
        context = offloaded(model, stack, torch.device("cpu")) if offload else nullcontext(stack)
        with (
            context as there,
            Compensator(model, there, WINDOWS, torch.float32, Ranks.alone(), batch_size) as compensator,
        ):
            with trouble or nullcontext():
                record = compensator.fit(REMOVED)
            return record, compensator.changed_weights(), compensator.batch_size
    finally:
        assert all(value.equal(before[name]) for name, value in model.state_dict().items())
        assert not any(module._forward_hooks for module in model.modules())


some = settings(max_examples=30, deadline=None)


@pytest.mark.long
@pytest.mark.reliability(
    "memory runs out at random places of a compensation, of whole models and block by block",
    lost="nothing: the same fit, in smaller batches",
)
@pytest.mark.tries(some.max_examples)
@some
@given(
    place=st.sampled_from(sorted(PLACES)),
    where=st.lists(st.floats(0, 0.999), min_size=1, max_size=3, unique=True),
    offload=st.booleans(),
)
@example(place="moments", where=[0.0], offload=False)
@example(place="writing a weight", where=[0.5], offload=True)
@example(place="writing a weight", where=[0.0, 0.875], offload=False)
def test_a_fit_survives_failures_at_any_place(place: str, where: list[float], offload: bool) -> None:
    expected, weights, _ = fit()
    owner, name, often = PLACES[place]
    failures = {int(share * often) for share in where}
    happened: list[int] = []

    def fails(number: int) -> bool:
        happened.extend({number} & failures)
        return number in failures

    trouble = failing(owner, name, fails, torch.OutOfMemoryError("CUDA out of memory"))
    record, folded, batch_size = fit(offload, trouble=trouble)
    assert batch_size == 8 // 2 ** len(happened)
    assert [replace(cut, tried={}, loss_before=0, loss_after=0) for cut in record.cuts] == [
        replace(cut, tried={}, loss_before=0, loss_after=0) for cut in expected.cuts
    ]
    for cut, other in zip(record.cuts, expected.cuts, strict=True):
        assert cut.loss_after == pytest.approx(other.loss_after, rel=1e-5)
        assert cut.tried == pytest.approx(other.tried, rel=1e-4)
    assert folded.keys() == weights.keys()
    for weight in folded:
        torch.testing.assert_close(folded[weight], weights[weight], rtol=1e-3, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("offload", [False, True])
def test_one_window_at_a_time_is_too_much(place: str, offload: bool) -> None:
    owner, name, often = PLACES[place]
    error = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)")

    def fails(number: int) -> bool:
        return inside[0] and number >= min(3, often - 1)

    inside = [True]
    restore = Compensator.restore

    def restoring(compensator: Compensator) -> None:
        inside[0] = False  # there is room again when the weights go back
        restore(compensator)
        inside[0] = True

    with pytest.MonkeyPatch.context() as patch, failing(owner, name, fails, error):
        patch.setattr(Compensator, "restore", restoring)
        with pytest.raises(OutOfMemoryError, match="12 windows of 16 tokens.*max_windows.*compensate='no'") as raised:
            fit(offload)
    assert ("offload='cpu'" in str(raised.value)) != offload


def test_other_errors_are_not_swallowed() -> None:
    with failing(Moments, "add", lambda number: number == 3, ZeroDivisionError()), pytest.raises(ZeroDivisionError):
        fit()


@pytest.mark.long
@pytest.mark.parametrize("compensate", ["during", "after"])
def test_a_whole_search_goes_on(compensate: str) -> None:
    config = SLEBConfig(num_blocks_to_remove=2, compensate=compensate, batch_size=8)
    blocks = []
    for failures in (set(), {1, 5}):
        pruner = SLEBPruner(tiny_model("llama"))
        with failing(matrices, "choose_matrix", failures.__contains__, torch.OutOfMemoryError()):
            pruner.prune(config, calibration=list(WINDOWS.windows))
        blocks.append([(step.block, pytest.approx(step.compensated_loss)) for step in pruner.report.steps])
    assert blocks[0] == blocks[1]


@pytest.mark.long
def test_a_whole_search_that_ends_leaves_the_model_as_it_was() -> None:
    model = tiny_model("llama")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = SLEBConfig(num_blocks_to_remove=3, compensate="during")
    fault = failing(matrices, "choose_matrix", lambda number: number > 0, torch.OutOfMemoryError())
    with fault, pytest.raises(OutOfMemoryError, match="compensate='no'"):
        SLEBPruner(model).prune(config, calibration=list(WINDOWS.windows))
    assert model.state_dict().keys() == before.keys()
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_it_follows_a_search_that_went_on_in_smaller_batches() -> None:
    model = tiny_model("llama")
    stack = find_decoder_stack(model)
    measure = ExactLosses(model, stack, WINDOWS, batch_size=8)
    with Compensator(model, stack, WINDOWS, torch.float32, Ranks.alone(), measure.forward_size) as compensator:
        measure.batch_size = 2
        compensate(compensator, measure, REMOVED)
        assert compensator.batch_size == 2
