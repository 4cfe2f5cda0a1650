"""What `SLEBPruner` does around a removal: checks of named blocks, compensation done again, and the account of it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .blocks import gates
from .blocks.stack import DecoderStack
from .calibration.sources import load_calibration
from .errors import CalibrationError, ConfigError, ReportError, UnsupportedModelError
from .provenance import versions
from .records import StepRecord
from .report import PruningReport
from .search.compensating import compensate_known, name_blocks


def check_removal(model: PreTrainedModel, stack: DecoderStack, numbers: Sequence[int], blocks: Sequence[int]) -> None:
    """Refuse a list of blocks that cannot all be removed.

    Args:
        model: The model.
        stack: Its decoder blocks.
        numbers: Their numbers in the dense model.
        blocks: The blocks to remove, by their number in the dense model.

    Raises:
        ConfigError: If a block is named twice, does not exist or is gone already, or none would be left.
        UnsupportedModelError: If this architecture's blocks cannot be removed.

    Example:
        ```python
        check_removal(model, stack, range(30), [14, 23, 11])
        ```
    """
    for place, block in enumerate(blocks):
        if block not in numbers or block in blocks[:place]:
            raise ConfigError(f"Block {block} cannot be removed (again); the model has the blocks {list(numbers)}.")
    if not 0 < len(blocks) < len(numbers):
        raise ConfigError(f"Between 1 and {len(numbers) - 1} blocks can be removed; got {len(blocks)}.")
    reason = gates.refusal(model, stack, {numbers.index(block) for block in blocks})
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
    """What compensates the removals of a report, as its search did; the model is left as it was.

    Args:
        model: The dense model, from which the blocks are still to be taken.
        stack: Its decoder blocks.
        numbers: Their numbers in the dense model.
        cut: The report.
        calibration: The calibration data of the search, where the recipe's data set does not name them.
        tokenizer: The model's tokenizer; needed for text.

    Returns:
        The weights that take the place of the model's, by name, and the report with this compensation; none, and the
        report as it was, where its search did not compensate.

    Raises:
        ReportError: If the report is of several runs, any of which compensated.
        CalibrationError: If the calibration data cannot be used, or are not those of the search.

    Example:
        ```python
        weights, cut = compensation_of(model, stack, range(30), report.cut(3), None, tokenizer)
        ```
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
    """The report of steps that are decided, but not yet taken.

    Args:
        model: The model, which still has all blocks.
        stack: Its decoder blocks.
        numbers: Their numbers in the dense model.
        steps: The steps.
        **details: The other fields of the report, such as `base_model` and `seconds`.

    Returns:
        The report.

    Example:
        ```python
        report_of_steps(model, stack, range(30), steps, base_model=None, original_num_blocks=30, seconds=1.0)
        ```
    """
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
    """A report with the sizes of the model that came out, whatever became of tensors around the blocks.

    Args:
        report: The report.
        model: The model, without its blocks.

    Returns:
        The report.

    Example:
        ```python
        report = with_sizes_of(report, model)
        ```
    """
    size = model.get_memory_footprint(return_buffers=False)
    return replace(report, parameters_after=model.num_parameters(), weight_bytes_after=size)


def report_of_cut(cut: PruningReport, taken: PruningReport) -> PruningReport:
    """The report of a search, as that of a model from which its blocks were taken later.

    Args:
        cut: The report of the search, up to the last removal.
        taken: The report of taking them out.

    Returns:
        The report: steps and recipe of the search, sizes of the model. What was measured on another model is left out.

    Example:
        ```python
        report = report_of_cut(report.cut(3), taken)
        ```
    """
    return replace(
        cut,
        parameters_after=taken.parameters_after,
        # Bytes before a later one of several runs were those of a model that was never here.
        weight_bytes_before=None if cut.previous else taken.weight_bytes_before,
        weight_bytes_after=None if cut.previous else taken.weight_bytes_after,
        loading=taken.loading,
        evaluations=(),
        speeds=(),
        healing=(),
    )
