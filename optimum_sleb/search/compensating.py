"""Compensation of removals: during a search, after it, or for the removals of an earlier search."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..blocks.criterion import CROSS_ENTROPY, KL, Criterion
from ..blocks.kernels import UNCOMPILED
from ..blocks.precision import computes_in_float32, computing_in_float32
from ..blocks.stack import DecoderStack
from ..blocks.verify import check_removal
from ..calibration.sources import load_calibration
from ..calibration.windows import TokenWindows
from ..compensation.compensator import Compensator
from ..config import SLEBConfig, candidates_of
from ..errors import CalibrationError, ReportError, UnsupportedModelError
from ..models.positions import fit_windows
from ..report.cuts import compensated_again, sets_to_compensate
from ..report.records import CompensationRecord
from ..report.report import PruningReport
from ..runtime.ranks import Ranks
from ..runtime.undo import undoing
from .beam import BlockSet
from .candidate_losses import CandidateLosses
from .criterion import CriterionFunction, choose_criterion
from .exact import ExactLosses
from .float16 import check_float16
from .method import choose_method, why_not_exact
from .perplexity import perplexity_without


@dataclass(frozen=True)
class Compensated:
    """Result of compensating a set of removals."""

    record: CompensationRecord  # its blocks are indices
    loss: float  # calibration loss without the removed blocks and with `weights`
    weights: dict[str, Tensor]  # those that differ from the dense model's, by name
    perplexity: float | None = None  # where the loss is a divergence; measured only when the search has ended


@contextmanager
def open_compensator(
    losses: CandidateLosses, candidates: Sequence[int], stored_dtype: torch.dtype, *, every_block: bool
) -> Iterator[Compensator]:
    """Yield the compensator of a search; the model has its own weights at the end, stored in `stored_dtype`.
    Raise UnsupportedModelError if the blocks do not run one by one, CalibrationError if there are too few windows."""
    exact = isinstance(losses, ExactLosses)
    difference = None if exact else why_not_exact(losses.model, losses.stack, candidates)
    if difference is not None:
        raise UnsupportedModelError(
            f"The cuts of {type(losses.model).__name__} cannot be compensated: {difference}; use compensate='no'."
        )
    kernels = losses.kernels if isinstance(losses, ExactLosses) else UNCOMPILED
    size = _windows_per_forward(losses)
    compensator = Compensator(
        *(losses.model, losses.stack, losses.windows, stored_dtype, losses.ranks, size, kernels),
        # A function of one's own may be anything, such as a share of right answers, that no fit aims at.
        losses.criterion if losses.criterion.name == KL else CROSS_ENTROPY,
        every_block=every_block,
    )
    with undoing(compensator.restore):
        yield compensator


def compensate(compensator: Compensator, losses: CandidateLosses, removed: Collection[int]) -> Compensated:
    """Compensate the removals (block indices) and leave the model with the new weights.
    Raise OutOfMemoryError if not even one window fits."""
    # The search may have run out of memory since the compensator was opened, and use smaller batches now.
    compensator.batch_size = min(compensator.batch_size, _windows_per_forward(losses))
    record = compensator.fit(removed)
    return _compensated(record, losses, removed, compensator.changed_weights())


def compensate_best(
    compensator: Compensator, losses: CandidateLosses, sets: Sequence[BlockSet]
) -> tuple[Compensated, dict[BlockSet, float]]:
    """Compensate several sets of removals, and leave the model with the weights of the one whose loss on the held-back
    windows is lowest; the first of equal ones. Return it, and that loss of each set."""
    compensator.batch_size = min(compensator.batch_size, _windows_per_forward(losses))
    held_back: dict[BlockSet, float] = {}
    for blocks in sets:
        record = compensator.fit(blocks)
        held_back[blocks] = record.held_back_loss
        if min(held_back, key=held_back.__getitem__) == blocks:
            best, weights, removed = record, compensator.changed_weights(), blocks
    compensator.put(weights)
    return _compensated(best, losses, removed, weights), held_back


def _compensated(
    record: CompensationRecord, losses: CandidateLosses, removed: Collection[int], weights: dict[str, Tensor]
) -> Compensated:
    """Measure the loss of the model as it is now, which has these weights."""
    alive = [block for block in range(len(losses.stack)) if block not in removed]
    return Compensated(record, losses.losses_of(alive).double().sum().item(), weights)


def _windows_per_forward(losses: CandidateLosses) -> int:
    """Return the windows per forward pass of one block: 1 for the reference, which runs only whole models."""
    return losses.forward_size if isinstance(losses, ExactLosses) else 1


def compensate_earlier_removals(
    model: PreTrainedModel,
    stack: DecoderStack,
    windows: TokenWindows,
    config: SLEBConfig,
    sets: Sequence[BlockSet],
    candidates: Sequence[int],
    criterion: Criterion = CROSS_ENTROPY,
) -> tuple[Compensated, dict[BlockSet, float]]:
    """Compensate the removals of an earlier search as `compensate_best`; the model is left unchanged. The sets and
    `candidates` (of that search, ascending: the last one decides the batch size) are indices. The caller puts the
    weights into the model. Raise NonFiniteLossError if a float16 model overflows with them."""
    stored_dtype, ranks = model.dtype, Ranks.alone()
    in_float32 = computes_in_float32(model.device, config.search_dtype)
    every_block = config.compensate == "every-block"
    with computing_in_float32(model) if in_float32 else nullcontext():
        losses = choose_method(model, stack, windows, candidates, config, ranks, criterion=criterion).losses
        with open_compensator(losses, candidates, stored_dtype, every_block=every_block) as compensator:
            best, held_back = compensate_best(compensator, losses, sets)
            removed = min(held_back, key=held_back.__getitem__)
            best = replace(best, perplexity=perplexity_without(losses, removed))
    if in_float32:
        size = config.batch_size or 1
        check_float16(model, stack, windows, removed=removed, weights=best.weights, batch_size=size, ranks=ranks)
    return best, held_back


def repeat_compensation(
    model: PreTrainedModel,
    stack: DecoderStack,
    dense_numbers: Sequence[int],  # of the model's blocks
    report: PruningReport,
    calibration: Any,
    tokenizer: PreTrainedTokenizerBase | None,
    criterion: CriterionFunction | str | None = None,  # that of the search
) -> tuple[dict[str, Tensor], PruningReport]:
    """Return the compensated weights by name, and the report with this compensation, computed as in its search, which
    may choose another set; no weights if that did not compensate. The model is left unchanged. Raise CalibrationError,
    ReportError, UnsupportedModelError for another text, for several runs or no criterion, for sets that cannot go."""
    if report.previous is not None and any(run.recipe and run.recipe.compensate != "no" for run in report.runs):
        raise ReportError(
            "The report is of a model that was pruned several times, whose compensation cannot be repeated in one "
            "run; repeat its runs one after the other."
        )
    if report.recipe is None or report.calibration is None or report.recipe.compensate == "no":
        return {}, report
    if report.criterion not in (None, KL) and criterion is None:
        raise ReportError(
            f"The search lowered the criterion {report.criterion}, and compensated; to fit the maps again, pass that "
            "function (criterion=)."
        )
    sets = sets_to_compensate(report)
    for blocks in sets:
        check_removal(model, stack, dense_numbers, blocks)
    lowered = choose_criterion(report.criterion, criterion)
    loaded = load_calibration(calibration, tokenizer, fit_windows(report.recipe, model))
    if loaded.windows.fingerprint != report.calibration.fingerprint:
        raise CalibrationError(
            f"The calibration data ({loaded.source}) are not those of the search, which had "
            f"{report.calibration.source}; its compensation needs the same windows (calibration=)."
        )
    may_go = candidates_of(report.recipe, dense_numbers)
    candidates = [index for index in may_go if dense_numbers[index] not in report.barred_blocks]
    indices = {tuple(map(dense_numbers.index, blocks)): blocks for blocks in sets}
    best, held_back = compensate_earlier_removals(
        model, stack, loaded.windows, report.recipe, tuple(indices), candidates, lowered
    )
    record = with_dense_numbers(best.record, dense_numbers)
    of_sets = {indices[one]: loss for one, loss in held_back.items()}
    search = report.search and replace(report.search, perplexity_after=best.perplexity)
    return best.weights, compensated_again(replace(report, search=search), best.loss, record, of_sets)


def put_weights(model: PreTrainedModel, weights: dict[str, Tensor]) -> None:
    """Give parameters of a model that still has all its blocks other data, by name."""
    for name, value in weights.items():
        parameter = model.get_parameter(name)
        parameter.data = value.to(parameter.device, parameter.dtype)


def with_dense_numbers(record: CompensationRecord, dense_numbers: Sequence[int]) -> CompensationRecord:
    """Replace block indices of the current model by block numbers of the dense model (`dense_numbers`, by index).

    >>> from optimum_sleb.report.records import CutRecord
    >>> cut = CutRecord(block=1, gap=(2,), loss_before=3.0, loss_after=2.5)
    >>> with_dense_numbers(CompensationRecord(2, 1, 12, (cut,), 0.1), dense_numbers=[0, 4, 7]).cuts[0].gap
    (7,)
    """
    cuts = tuple(
        replace(
            cut,
            block=None if cut.block is None else dense_numbers[cut.block],
            gap=tuple(dense_numbers[index] for index in cut.gap),
        )
        for cut in record.cuts
    )
    return replace(record, cuts=cuts)
