"""How a model is recognised: by all of its weights and its config, or by a sample of its weights in any precision."""

import hashlib
import math
from enum import Enum
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ..blocks.packed import is_packed
from ..report.records import WeightsRecord

# Elements of each tensor that go into the hash of the weights: few are fast to read and still tell models apart.
_ELEMENTS_PER_TENSOR = 1024
# Number of parameters to sample: models that were trained separately differ in almost every weight.
_MAX_VALUES = 128
# Spacing of float16 below its smallest normal number; dequantising differs by about as much between versions of a
# library. Training moves a weight by more.
_NOISE = 2.0**-24
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


def model_fingerprint(model: PreTrainedModel) -> dict[str, Any]:
    """Return the hash of the weights, the config and the precision: what two models with equal losses have in common.

    The header of a journal and the kept measurements hold these values, so they must not change.
    """
    return {"weights": weights_hash(model), "config": loss_relevant_config(model.config), "dtype": str(model.dtype)}


def weights_hash(model: PreTrainedModel) -> str:
    """Return SHA-256 over the names, the shapes and evenly spaced elements of all tensors of a model."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        step = max(1, tensor.numel() // _ELEMENTS_PER_TENSOR)
        sample = tensor.detach().reshape(-1)[::step]
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(sample.to("cpu", torch.float64).numpy().tobytes())
    return digest.hexdigest()


def loss_relevant_config(config: PreTrainedConfig) -> dict[str, Any]:
    """Return all values of a config that can change a loss, as JSON values, equal in each loading of the same model.

    >>> from transformers import LlamaConfig
    >>> values = loss_relevant_config(LlamaConfig(rms_norm_eps=1e-5))
    >>> values["rms_norm_eps"], "use_cache" in values
    (1e-05, False)
    """
    values: dict[str, Any] = _json_value(config.to_dict(), ordered=True)
    # `to_dict` leaves these out, because they are no part of a checkpoint; but they change the last bits of a loss.
    implementations = {
        "attn_implementation": getattr(config, "_attn_implementation", None),
        "experts_implementation": getattr(config, "_experts_implementation", None),
    }
    return values | _json_value(implementations, ordered=True)


def sample_weights(model: PreTrainedModel) -> WeightsRecord:
    """Sample one weight from each of many parameters, at the same positions in every model with these parameters.

    Packed weights, weights on the meta device, NaN and infinity are left out.
    """
    at_hand = {name: parameter for name, parameter in model.named_parameters() if _has_values(parameter)}
    # Sorted by hash, because every n-th name could always be the same matrix of a block.
    names = sorted(at_hand, key=_hash_of_name)[:_MAX_VALUES]
    values = {name: _value(name, at_hand[name]) for name in names}
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    return WeightsRecord(torch.finfo(model.dtype).eps, finite)


def first_differing_weight(model: PreTrainedModel, record: WeightsRecord) -> str | None:
    """Return the first sampled parameter that differs, with both values; `None` if there is none.

    Between two precisions, a difference within the rounding of both is allowed, so very light training can go unseen.
    """
    for name, parameter in model.named_parameters():
        recorded = record.values.get(name)
        if recorded is None or not _has_values(parameter):
            continue
        value, epsilon = _value(name, parameter), torch.finfo(parameter.dtype).eps
        slack = 0.0 if epsilon == record.epsilon else (epsilon + record.epsilon) / 2
        if math.isfinite(value) and abs(value - recorded) > _NOISE + slack * max(abs(value), abs(recorded)):
            return f"{name} ({recorded:.8g} there, {value:.8g} here)"
    return None


def _has_values(parameter: torch.nn.Parameter) -> bool:
    return not is_packed(parameter) and parameter.device.type != "meta" and parameter.numel() > 0


def _value(name: str, parameter: torch.nn.Parameter) -> float:
    return float(parameter.detach().reshape(-1)[_hash_of_name(name) % parameter.numel()].item())


def _hash_of_name(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest(), "big")


def _json_value(value: Any, *, ordered: bool) -> Any:
    if isinstance(value, Enum):
        return _json_value(value.value, ordered=ordered)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # NaN does not equal itself
    if isinstance(value, torch.dtype | torch.device):
        return str(value)
    if isinstance(value, dict):
        # A quantisation config turns sets into lists, whose order differs between processes.
        return {
            str(name): _json_value(item, ordered=ordered and name != "quantization_config")
            for name, item in value.items()
            if name not in _CHANGE_NO_LOSS and not str(name).startswith("_")
        }
    if isinstance(value, list | tuple | set | frozenset):
        items = [_json_value(item, ordered=ordered) for item in value]
        return items if ordered and isinstance(value, list | tuple) else sorted(items, key=repr)
    if hasattr(value, "to_dict"):  # a config or a quantisation within a list or a dictionary
        return _json_value(value.to_dict(), ordered=ordered)
    return type(value).__qualname__  # its repr may hold its address, which differs between processes
