"""Building of reports: of removals that are decided, and of those that are applied later."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from transformers import PreTrainedModel

from ..blocks.stack import DecoderStack
from ..version import versions
from .records import StepRecord
from .report import PruningReport


def report_before_removal(
    model: PreTrainedModel,
    stack: DecoderStack,
    dense_numbers: Sequence[int],
    steps: tuple[StepRecord, ...],
    **details: Any,
) -> PruningReport:
    """Return the report of steps that are decided, but not yet applied; `details` are its other fields."""
    gone = [parameter for step in steps for parameter in stack.blocks[dense_numbers.index(step.block)].parameters()]
    parameters = model.num_parameters()
    size = model.get_memory_footprint(return_buffers=False)
    return PruningReport(
        architecture=type(model).__name__,
        blocks_before=tuple(dense_numbers),
        parameters_before=parameters,
        parameters_after=parameters - sum(parameter.numel() for parameter in gone),
        steps=steps,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        weight_bytes_before=size,
        weight_bytes_after=size - sum(parameter.nbytes for parameter in gone),
        **details,
    )


def with_model_sizes(report: PruningReport, model: PreTrainedModel) -> PruningReport:
    """Return the report with the sizes of the shortened model, which count tensors outside the blocks too."""
    size = model.get_memory_footprint(return_buffers=False)
    return replace(report, parameters_after=model.num_parameters(), weight_bytes_after=size)


def report_of_later_removal(search: PruningReport, removal: PruningReport) -> PruningReport:
    """Return the report of a search, with the sizes of the model from which its blocks were removed later."""
    # What was measured on another model (evaluations, speeds, healing) is left out.
    return replace(
        search,
        parameters_after=removal.parameters_after,
        # The model before a later one of several runs was never loaded here, so its bytes are unknown.
        weight_bytes_before=None if search.previous else removal.weight_bytes_before,
        weight_bytes_after=None if search.previous else removal.weight_bytes_after,
        loading=removal.loading,
        evaluations=(),
        pruned_evaluations=(),
        speeds=(),
        healing=(),
    )
