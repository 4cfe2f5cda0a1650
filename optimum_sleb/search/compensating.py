"""Compensation of removals: during a search, after it, or for the removals of an earlier search."""

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
from ..report.records import CompensationRecord
from .candidate_losses import Measurement
from .exact import ExactLosses
from .float16 import check_float16
from .method import choose_method, difference_of_exact


@dataclass(frozen=True)
class Compensated:
    """Result of compensating a set of removals."""

    record: CompensationRecord  # its blocks are indices
    loss: float  # calibration loss, in nats, without the removed blocks and with `weights`
    weights: dict[str, Tensor]  # those that differ from the dense model's, by name


def open_compensator(measure: Measurement, candidates: Sequence[int], precision: torch.dtype) -> Compensator:
    """Return the compensator of a search; the caller must close it. `precision` is that of the stored weights.
    Raise UnsupportedModelError if the blocks do not run one by one, CalibrationError if there are too few windows."""
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
    """Compensate the removals (block indices) and leave the model with the new weights.
    Raise OutOfMemoryError if not even one window fits."""
    # The search may have run out of memory since the compensator was opened, and use smaller batches now.
    compensator.batch_size = min(compensator.batch_size, _windows_at_a_time(measure))
    record = compensator.fit(removed)
    alive = [block for block in range(len(measure.stack)) if block not in removed]
    loss = measure.losses_with(alive).double().sum().item()
    return Compensated(record, loss, compensator.folded())


def _windows_at_a_time(measure: Measurement) -> int:
    """Return the windows per forward pass of one block: 1 for the reference, which runs only whole models."""
    return measure.forward_size if isinstance(measure, ExactLosses) else 1


def compensate_known(
    model: PreTrainedModel,
    stack: DecoderStack,
    windows: TokenWindows,
    config: SLEBConfig,
    removed: Collection[int],
    barred: Collection[int],
) -> Compensated:
    """Compensate the removals of an earlier search as that search would have. The model is left unchanged.
    `removed` and `barred` (blocks between the barriers that the search had to leave out) are indices.
    The caller puts the weights into the model. Raise NonFiniteLossError if a float16 model overflows with them."""
    precision = model.dtype
    # The candidates of the search: a model may fail to run without a barred block, and the last candidate decides the
    # batch size.
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
    """Copy weights (by parameter name) into a model that still has all its blocks."""
    for name, value in weights.items():
        model.get_parameter(name).copy_(value)


@contextmanager
def compensated_for_a_cut(model: PreTrainedModel, stack: DecoderStack, weights: dict[str, Tensor]) -> Iterator[None]:
    """Put weights into a model for a context that removes its blocks, and keep them.
    Restore the old weights if the context fails before the blocks are removed."""
    num_blocks = len(stack)
    originals = {name: model.get_parameter(name).detach().clone() for name in weights}
    try:
        put_weights(model, weights)
        yield
    except BaseException:
        if len(stack) == num_blocks:  # after a removal, the same names belong to other blocks
            put_weights(model, originals)
        raise


def name_blocks(record: CompensationRecord, names: Sequence[int]) -> CompensationRecord:
    """Replace block indices of the current model by block numbers of the dense model (`names`, by index).

    >>> from optimum_sleb.report.records import CutRecord
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
