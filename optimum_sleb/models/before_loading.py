"""What a recipe asks of a model that it cannot give, found before its weights are loaded."""

from typing import Any

from transformers import PreTrainedModel

from ..blocks.shortening import num_blocks_of
from ..config import SLEBConfig
from .goals import check_size_goal
from .positions import check_config, fit_window_length
from .provenance import provenance_of


def check_before_loading(name_or_path: str, config: SLEBConfig, **kwargs: Any) -> None:
    """Refuse a recipe that asks for blocks, positions or a size that the model cannot give.
    `kwargs` are those of `loading.load_model`."""

    def check(model: PreTrainedModel) -> None:
        num_blocks = num_blocks_of(model.config)
        blocks = provenance_of(model, num_blocks).blocks
        config.num_blocks_to_remove_of(num_blocks, blocks)
        fit_window_length(config.window_length, model)
        check_size_goal(model, config, blocks)

    check_config(name_or_path, kwargs, check)
