"""What a recipe, blocks or a report ask of a model that it cannot give, found before its weights are loaded."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from ..blocks.shortening import num_blocks_of
from ..blocks.verify import check_block_numbers
from ..config import SLEBConfig
from ..errors import ModelNotFoundError
from ..report.report import PruningReport
from .gguf_header import blocks_in_gguf
from .goals import check_size_goal
from .loading import load_report
from .positions import check_config, fit_window_length
from .provenance import check_report_matches_config, check_same_shape, provenance_of


def check_before_loading(name_or_path: str, config: SLEBConfig, **kwargs: Any) -> None:
    """Refuse a recipe that asks for blocks, positions or a size that the model cannot give.
    `kwargs` are those of `loading.load_model`."""

    def check(model: PreTrainedModel, blocks: tuple[int, ...]) -> None:
        config.num_blocks_to_remove_of(len(blocks), blocks)
        fit_window_length(config.window_length, model)
        check_size_goal(model, config, blocks)

    count = _check_model(name_or_path, kwargs, check)
    if count is not None:
        config.num_blocks_to_remove_of(count)


def check_blocks_before_loading(name_or_path: str, blocks: Sequence[int], **kwargs: Any) -> None:
    """Refuse blocks that the model does not have (any more), or all that it has."""
    count = _check_model(name_or_path, kwargs, lambda model, numbers: check_block_numbers(numbers, blocks))
    if count is not None:
        check_block_numbers(range(count), blocks)


def check_report_before_loading(name_or_path: str, report: PruningReport, **kwargs: Any) -> None:
    """Refuse a report that began with another model."""

    def check(model: PreTrainedModel, blocks: tuple[int, ...]) -> None:
        parameters = [model.num_parameters()]
        if getattr(model.config, "tie_word_embeddings", False):  # the checkpoint may have a head all the same
            parameters.append(parameters[0] + model.get_input_embeddings().weight.numel())
        if getattr(model.config, "quantization_config", None) is None:
            check_same_shape(type(model).__name__, parameters, blocks, report.first_run)

    _check_model(name_or_path, kwargs, check)


def _check_model(
    name_or_path: str, kwargs: dict[str, Any], check: Callable[[PreTrainedModel, tuple[int, ...]], object]
) -> int | None:
    """Check the model without weights, its blocks named by their dense numbers, and the report beside it.
    Of a local GGUF file only the number of blocks is known, which is returned; `None` for any other model.
    """

    def check_both(model: PreTrainedModel) -> None:
        provenance = provenance_of(model, num_blocks_of(model.config))
        if (beside := load_report(name_or_path, **kwargs)) is not None:
            check_report_matches_config(beside, provenance, name_or_path)
        check(model, provenance.blocks)

    check_config(name_or_path, kwargs, check_both)
    gguf_file = kwargs.get("gguf_file")
    if gguf_file is None or not os.path.isdir(name_or_path):
        return None
    file = Path(name_or_path, kwargs.get("subfolder") or "", gguf_file)
    if not os.path.isfile(file):
        raise ModelNotFoundError(
            f"The folder {str(file.parent)!r} holds no {gguf_file!r} (--gguf-file); name one that it holds."
        )
    return blocks_in_gguf(file)
