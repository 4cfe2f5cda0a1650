"""Steps of `SLEBPruner` around a removal: checks of the blocks, repeated compensation, and the report."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .blocks.stack import DecoderStack
from .blocks.verify import refusal
from .calibration.sources import load_calibration
from .errors import CalibrationError, ConfigError, ReportError, UnsupportedModelError
from .models.provenance import versions
from .report.records import StepRecord
from .report.report import PruningReport
from .search.compensating import compensate_known, name_blocks


def check_removal(model: PreTrainedModel, stack: DecoderStack, numbers: Sequence[int], blocks: Sequence[int]) -> None:
    """Raise ConfigError or UnsupportedModelError if the given blocks of the dense model cannot all be removed."""
    for place, block in enumerate(blocks):
        if block not in numbers or block in blocks[:place]:
            raise ConfigError(f"Block {block} cannot be removed (again); the model has the blocks {list(numbers)}.")
    if not 0 < len(blocks) < len(numbers):
        raise ConfigError(f"Between 1 and {len(numbers) - 1} blocks can be removed; got {len(blocks)}.")
    reason = refusal(model, stack, {numbers.index(block) for block in blocks})
    if reason is not None:
        raise UnsupportedModelError(f"Blocks {list(blocks)} of {type(model).__name__} cannot be removed: {reason}.")


def compensation_of(
    model: PreTrainedModel,
    stack: DecoderStack,
    numbers: Sequence[int],
    cut: PruningReport,
    calibration: Any,
    tokenizer: PreTrainedTokenizerBase | None,
) -> tuple[dict[str, Tensor], PruningReport]:
    """Return the compensated weights by name, and the report with this compensation, computed as in its search.

    The model still has all blocks and is not changed. If the search did not compensate: no weights, the same report.
    Raise CalibrationError unless the calibration text is that of the search, ReportError if several runs compensated.
    """
    if cut.previous is not None and any(run.recipe and run.recipe.compensate != "no" for run in cut.runs):
        raise ReportError(
            "The report is of a model that was pruned several times, whose compensation cannot be repeated in one "
            "run; repeat its runs one after the other."
        )
    if cut.recipe is None or cut.calibration is None or cut.recipe.compensate == "no":
        return {}, cut
    loaded = load_calibration(calibration, tokenizer, cut.recipe)
    if loaded.windows.fingerprint != cut.calibration.fingerprint:
        raise CalibrationError(
            f"The calibration data ({loaded.source}) are not those of the search, which had "
            f"{cut.calibration.source}; its compensation needs the same windows (calibration=)."
        )
    removed = {numbers.index(block) for block in cut.removed_blocks}
    barred = [index for index, number in enumerate(numbers) if number in cut.barred_blocks]
    compensated = compensate_known(model, stack, loaded.windows, cut.recipe, removed, barred)
    last = replace(cut.steps[-1], compensated_loss=compensated.loss)
    record = name_blocks(compensated.record, tuple(numbers))
    return compensated.weights, replace(cut, steps=(*cut.steps[:-1], last), compensation=record)


def report_of_steps(
    model: PreTrainedModel, stack: DecoderStack, numbers: Sequence[int], steps: tuple[StepRecord, ...], **details: Any
) -> PruningReport:
    """Return the report of steps that are decided, but not yet applied; `details` are its other fields."""
    gone = [parameter for step in steps for parameter in stack.blocks[numbers.index(step.block)].parameters()]
    parameters = model.num_parameters()
    size = model.get_memory_footprint(return_buffers=False)
    return PruningReport(
        architecture=type(model).__name__,
        blocks_before=tuple(numbers),
        parameters_before=parameters,
        parameters_after=parameters - sum(parameter.numel() for parameter in gone),
        steps=steps,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        weight_bytes_before=size,
        weight_bytes_after=size - sum(parameter.nbytes for parameter in gone),
        **details,
    )


def with_sizes_of(report: PruningReport, model: PreTrainedModel) -> PruningReport:
    """Return the report with the sizes of the shortened model, which count tensors outside the blocks too."""
    size = model.get_memory_footprint(return_buffers=False)
    return replace(report, parameters_after=model.num_parameters(), weight_bytes_after=size)


def report_of_cut(cut: PruningReport, taken: PruningReport) -> PruningReport:
    """Return the report of a search, with the sizes of the model from which its blocks were removed later."""
    # What was measured on another model (evaluations, speeds, healing) is left out.
    return replace(
        cut,
        parameters_after=taken.parameters_after,
        # The model before a later one of several runs was never loaded here, so its bytes are unknown.
        weight_bytes_before=None if cut.previous else taken.weight_bytes_before,
        weight_bytes_after=None if cut.previous else taken.weight_bytes_after,
        loading=taken.loading,
        evaluations=(),
        speeds=(),
        healing=(),
    )
