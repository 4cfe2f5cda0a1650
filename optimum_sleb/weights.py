"""A sample of a model's weights, by which it is told from another of the same shape, in whatever precision."""

import hashlib
import math

import torch
from transformers import PreTrainedModel

from .blocks.packed import is_packed
from .records import WeightsRecord

# One weight from each of so many parameters: models that were trained apart differ in almost every one.
_MAX_VALUES = 128
# Numbers below float16's normal ones come out that coarse, and dequantising rounds about as much from one version of
# a library to the next. Training moves a weight by more.
_NOISE = 2.0**-24


def weights_record(model: PreTrainedModel) -> WeightsRecord:
    """Sample a model's weights.

    Packed weights and such as are not in memory (on the meta device) are left out, and so are NaN and infinity.

    Args:
        model: The model.

    Returns:
        The sample; the same parameters and places in every model with these parameters.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=40))
        >>> weights_record(model) == weights_record(model)
        True
    """
    at_hand = {
        name: parameter
        for name, parameter in model.named_parameters()
        if not is_packed(parameter) and parameter.device.type != "meta" and parameter.numel()
    }
    # In the order of their hashes: every n-th name would always be the same matrix of a block.
    names = sorted(at_hand, key=_hash)[:_MAX_VALUES]
    values = {name: _value(name, at_hand[name]) for name in names}
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    return WeightsRecord(torch.finfo(model.dtype).eps, finite)


def differing_weight(model: PreTrainedModel, record: WeightsRecord) -> str | None:
    """Find a weight by which a model is another one than the one that was sampled.

    In one precision, weights must be the same. In two, they may differ by the rounding of both, so that a model that
    was sampled in bfloat16 is known again in float32. A model that was fine-tuned is another one, for nothing that was
    measured before holds for it; a training so light that no sampled weight moved, or none beyond the rounding of
    another precision, is not noticed. What cannot be compared, because it is packed or not in memory here, is passed
    over.

    Args:
        model: The model.
        record: The sample.

    Returns:
        The name of the first parameter that differs, with both values; `None` where there is none.

    Example:
        ```python
        differing_weight(model, report.weights_before)  # "lm_head.weight (0.25 there, 0.5 here)"
        ```
    """
    for name, parameter in model.named_parameters():
        there = record.values.get(name)
        if there is None or is_packed(parameter) or parameter.device.type == "meta" or not parameter.numel():
            continue
        here, epsilon = _value(name, parameter), torch.finfo(parameter.dtype).eps
        slack = 0.0 if epsilon == record.epsilon else (epsilon + record.epsilon) / 2
        if math.isfinite(here) and abs(here - there) > _NOISE + slack * max(abs(here), abs(there)):
            return f"{name} ({there:.8g} there, {here:.8g} here)"
    return None


def _value(name: str, parameter: torch.nn.Parameter) -> float:
    return float(parameter.detach().reshape(-1)[_hash(name) % parameter.numel()].item())


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest(), "big")
