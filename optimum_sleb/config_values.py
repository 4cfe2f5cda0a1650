"""What a model's config computes with: the same weights with another rope_theta or rms_norm_eps are another model."""

import math
from enum import Enum
from typing import Any

import torch
from transformers import PreTrainedConfig

# Names, places, versions, and switches of what a forward returns or keeps: none of them changes a loss. A run that is
# resumed may load its model from another place, or after a Trainer has changed such a switch.
_CHANGE_NO_LOSS = {
    "architectures",
    "auto_map",
    "bos_token_id",
    "dtype",  # kept beside the config, as the model has it
    "eos_token_id",
    "gguf_file",
    "id2label",
    "initializer_range",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "return_dict",
    "sleb",  # where a pruned model comes from; its blocks are kept beside the config
    "tokenizer_class",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}


def config_values(config: PreTrainedConfig) -> dict[str, Any]:
    """All of a config that may change a loss, alike for every loading of the same model.

    Args:
        config: The model's config.

    Returns:
        Plain values, which JSON can hold and which equal themselves after it.

    Example:
        >>> from transformers import LlamaConfig
        >>> values = config_values(LlamaConfig(rms_norm_eps=1e-5))
        >>> values["rms_norm_eps"], "use_cache" in values
        (1e-05, False)
    """
    values: dict[str, Any] = _plain(config.to_dict(), ordered=True)
    # Not in the dictionary, since a checkpoint does not decide on them; but they change the last bits of a loss.
    implementations = {
        "attn_implementation": getattr(config, "_attn_implementation", None),
        "experts_implementation": getattr(config, "_experts_implementation", None),
    }
    return values | _plain(implementations, ordered=True)


def _plain(value: Any, *, ordered: bool) -> Any:
    if isinstance(value, Enum):
        return _plain(value.value, ordered=ordered)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # NaN does not equal itself
    if isinstance(value, torch.dtype | torch.device):
        return str(value)
    if isinstance(value, dict):
        # A quantisation makes lists out of sets, whose order is another in each process.
        return {
            str(name): _plain(item, ordered=ordered and name != "quantization_config")
            for name, item in value.items()
            if name not in _CHANGE_NO_LOSS and not str(name).startswith("_")
        }
    if isinstance(value, list | tuple | set | frozenset):
        items = [_plain(item, ordered=ordered) for item in value]
        return items if ordered and isinstance(value, list | tuple) else sorted(items, key=repr)
    if hasattr(value, "to_dict"):  # a config or a quantisation within a list or a dictionary
        return _plain(value.to_dict(), ordered=ordered)
    return type(value).__qualname__  # what an object prints may hold its address, which is another in each process
