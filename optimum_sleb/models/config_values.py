"""The values of a model's config that can change a loss, such as rope_theta and rms_norm_eps."""

import math
from enum import Enum
from typing import Any

import torch
from transformers import PreTrainedConfig

# Names, paths, versions, and switches of what a forward pass returns or caches. When a run is resumed, its model may
# come from another path, and a Trainer may have changed such a switch.
_CHANGE_NO_LOSS = {
    "architectures",
    "auto_map",
    "bos_token_id",
    "dtype",  # compared separately, as the dtype of the model
    "eos_token_id",
    "gguf_file",
    "id2label",
    "initializer_range",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "return_dict",
    "sleb",  # the origin of a pruned model; its block numbers are compared separately
    "tokenizer_class",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}


def config_values(config: PreTrainedConfig) -> dict[str, Any]:
    """Return all values of a config that can change a loss, as JSON values, equal in each loading of the same model.

    >>> from transformers import LlamaConfig
    >>> values = config_values(LlamaConfig(rms_norm_eps=1e-5))
    >>> values["rms_norm_eps"], "use_cache" in values
    (1e-05, False)
    """
    values: dict[str, Any] = _plain(config.to_dict(), ordered=True)
    # `to_dict` leaves these out, because they are no part of a checkpoint; but they change the last bits of a loss.
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
        # A quantisation config turns sets into lists, whose order differs between processes.
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
    return type(value).__qualname__  # its repr may hold its address, which differs between processes
