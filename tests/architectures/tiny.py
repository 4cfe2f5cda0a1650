"""Tiny random models of every architecture, with every per-layer mechanism of their configs switched on.
Attention of several kinds, dense and sparse layers, and shared keys and values are mixed, which is harder than most
released checkpoints, so that a block that computes as another block after pruning is detected.
"""

import torch
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)

from .sizes import HARD, SMALL

# Larger models are refused: some vision towers ignore the small sizes of their config.
_MAX_PARAMETERS = 50_000_000


def tiny_config(model_type: str) -> PreTrainedConfig:
    """Return a small config of an architecture, with its per-layer mechanisms switched on.

    >>> tiny_config("qwen3").num_hidden_layers
    8
    """
    return _shrink(CONFIG_MAPPING[model_type])


def tiny_model(model_type: str, *, with_images: bool = False, seed: int = 0) -> PreTrainedModel:
    """Return a small random causal language model in float32, whose weights are large enough that every block matters.
    `ValueError` is raised if the smallest model of the architecture is not small.
    """
    config = tiny_config(model_type)
    mapping = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING if with_images else MODEL_FOR_CAUSAL_LM_MAPPING
    model_class = mapping[type(config)]
    if not isinstance(config, model_class.config_class):  # the language model of a composite
        config = config.get_text_config(decoder=True)
    with torch.device("meta"):
        size = model_class._from_config(config).num_parameters()
    if size > _MAX_PARAMETERS:
        raise ValueError(f"its smallest model has {size / 1e6:.0f} million parameters")
    torch.manual_seed(seed)
    model = model_class._from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape)
            # Matrices get a gain of about one; norms, biases and decay rates get values around their own.
            parameter.copy_(noise * 0.15 if parameter.dim() > 1 else parameter + noise * 0.05)
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0.0  # as in every loaded checkpoint
    return model.eval()


def _shrink(config_class: type[PreTrainedConfig]) -> PreTrainedConfig:
    default = config_class()
    fields = default.to_dict()
    values = {name: value for name, value in SMALL.items() if name in fields}
    # Configs are strict: where a field is a whole number, 0.0 is refused.
    values |= {name: int(value) for name, value in values.items() if type(fields[name]) is int}
    count = getattr(default, "num_hidden_layers", None)
    for name, value in fields.items():
        if isinstance(value, list) and len(value) == count and all(isinstance(item, str) for item in value):
            values[name] = _irregular(sorted(set(value)))
    for name in config_class.sub_configs:
        if isinstance(getattr(default, name, None), PreTrainedConfig):
            values[name] = _shrink(type(getattr(default, name))).to_dict()
    return config_class(**(values | HARD.get(config_class.model_type, {})))


def _irregular(kinds: list[str]) -> list[str]:
    """Return one kind of layer for each block, in an order without a period; the last block is of the first kind."""
    order = (0, 1, 0, 0, 1, 2, 1, 0)
    return [kinds[number % len(kinds)] for number in order]
