"""Compensation as a part of a search, or of the removals that an earlier search found."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..blocks.kernels import PLAIN
from ..blocks.precision import computes_in_float32, computing_in_float32
from ..blocks.stack import DecoderStack
from ..calibration.windows import TokenWindows
from ..compensation.compensator import Compensator
from ..config import SLEBConfig
from ..errors import UnsupportedModelError
from ..records import CompensationRecord
from .choice import choose_method, difference_of_exact
from .exact import ExactLosses
from .kept_precision import check_float16
from .measurement import Measurement


@dataclass(frozen=True)
class Compensated:
    """A set of cuts, compensated.

    Attributes:
        record: What was tried and kept; blocks are indices.
        loss: Calibration loss of the model without the removed blocks and with the folded weights.
        weights: The weights that differ from the dense model's, by name.
    """

    record: CompensationRecord
    loss: float
    weights: dict[str, Tensor]


def open_compensator(measure: Measurement, candidates: Sequence[int], precision: torch.dtype) -> Compensator:
    """The compensator of a search.

    Args:
        measure: The search's way of measuring.
        candidates: Blocks that may go, ascending.
        precision: The precision that the model's weights are kept in.

    Returns:
        The compensator; it must be closed.

    Raises:
        UnsupportedModelError: If the blocks of this model do not run one by one.
        CalibrationError: If there are too few windows.

    Example:
        ```python
        with open_compensator(measure, range(1, 29), torch.bfloat16) as compensator:
            compensate(compensator, measure, {4, 5}).record
        ```
    """
    exact = isinstance(measure, ExactLosses)
    difference = None if exact else difference_of_exact(measure.model, measure.stack, candidates)
    if difference is not None:
        raise UnsupportedModelError(
            f"The cuts of {type(measure.model).__name__} cannot be compensated: {difference}; use compensate='no'."
        )
    kernels = measure.kernels if isinstance(measure, ExactLosses) else PLAIN
    size = _windows_at_a_time(measure)
    return Compensator(measure.model, measure.stack, measure.windows, precision, size, kernels, measure.ranks)


def compensate(compensator: Compensator, measure: Measurement, removed: Collection[int]) -> Compensated:
    """Compensate a set of cuts, and leave the model so.

    Args:
        compensator: The compensator.
        measure: The search's way of measuring.
        removed: Indices of the removed blocks.

    Returns:
        What came out.

    Raises:
        OutOfMemoryError: If not even one window at a time fits.

    Example:
        ```python
        compensate(compensator, measure, {4, 5}).loss
        ```
    """
    # Where memory ran out since it was opened, the search goes on in smaller batches.
    compensator.batch_size = min(compensator.batch_size, _windows_at_a_time(measure))
    record = compensator.fit(removed)
    alive = [block for block in range(len(measure.stack)) if block not in removed]
    loss = measure.losses_with(alive).double().sum().item()
    return Compensated(record, loss, compensator.folded())


def _windows_at_a_time(measure: Measurement) -> int:
    """Windows that the blocks run at a time. One by one they run only where the search is exact."""
    return measure.forward_size if isinstance(measure, ExactLosses) else 1


def compensate_known(
    model: PreTrainedModel,
    stack: DecoderStack,
    windows: TokenWindows,
    config: SLEBConfig,
    removed: Collection[int],
    barred: Collection[int],
) -> Compensated:
    """Compensate removals that are known, as the search that found them would have. The model is left as it was.

    Args:
        model: The model.
        stack: Its decoder blocks.
        windows: The calibration windows.
        config: The recipe of the search.
        removed: Indices of the removed blocks.
        barred: Indices of the blocks between the barriers that the search had to leave out.

    Returns:
        What came out; its weights are for the caller to put into the model.

    Raises:
        UnsupportedModelError: If the blocks of this model do not run one by one.
        CalibrationError: If there are too few windows.
        NonFiniteLossError: If a loss is NaN or infinite in float16, where that is what the model is kept in.
        OutOfMemoryError: If not even one window at a time fits.

    Example:
        ```python
        compensated = compensate_known(model, stack, windows, report.recipe, {5, 4, 26}, barred=())
        ```
    """
    precision = model.dtype
    # Those of the search: a model may not even run without one that is barred, and batches are sized by the last.
    between = range(config.early_barrier, len(stack) - config.latter_barrier)
    candidates = [block for block in between if block not in barred]
    in_float32 = computes_in_float32(model.device, config.search_dtype)
    with computing_in_float32(model) if in_float32 else nullcontext():
        measure = choose_method(model, stack, windows, candidates, config, lambda pairs: None).measure
        with open_compensator(measure, candidates, precision) as compensator:
            compensated = compensate(compensator, measure, removed)
    if in_float32:
        size = config.batch_size or 1
        check_float16(model, stack, windows, removed=removed, weights=compensated.weights, batch_size=size)
    return compensated


@torch.no_grad()
def put_weights(model: PreTrainedModel, weights: dict[str, Tensor]) -> None:
    """Put folded weights into a model, in place.

    Args:
        model: The model with all its blocks.
        weights: The weights, by name.

    Example:
        ```python
        put_weights(model, compensated.weights)
        ```
    """
    for name, value in weights.items():
        model.get_parameter(name).copy_(value)


@contextmanager
def compensated_for_a_cut(model: PreTrainedModel, stack: DecoderStack, weights: dict[str, Tensor]) -> Iterator[None]:
    """Let a model have folded weights while its blocks are taken out, and keep them.

    Args:
        model: The model with all its blocks. Where an error ends the context before they are gone, it gets the weights
            back that it had.
        stack: Its decoder blocks.
        weights: The weights, by name.

    Example:
        ```python
        with compensated_for_a_cut(model, stack, compensated.weights):
            take_out(model, stack, removed=[4, 5])
        ```
    """
    num_blocks = len(stack)
    originals = {name: model.get_parameter(name).detach().clone() for name in weights}
    try:
        put_weights(model, weights)
        yield
    except BaseException:
        if len(stack) == num_blocks:  # later, these are the names of other blocks' weights
            put_weights(model, originals)
        raise


def name_blocks(record: CompensationRecord, names: Sequence[int]) -> CompensationRecord:
    """A record in which blocks have their numbers in the dense model.

    Args:
        record: A record in which blocks are indices.
        names: Numbers of the model's blocks in the dense model.

    Returns:
        The record.

    Example:
        >>> from optimum_sleb.records import CutRecord
        >>> cut = CutRecord(block=1, gap=(2,), loss_before=3.0, loss_after=2.5)
        >>> name_blocks(CompensationRecord(2, 1, 12, (cut,), 0.1), names=[0, 4, 7]).cuts[0].gap
        (7,)
    """
    cuts = tuple(
        replace(
            cut,
            block=None if cut.block is None else names[cut.block],
            gap=tuple(names[index] for index in cut.gap),
        )
        for cut in record.cuts
    )
    return replace(record, cuts=cuts)
