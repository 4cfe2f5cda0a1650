"""Sample of a model's weights that tells it from other models of the same shape, in any precision."""

import hashlib
import math

import torch
from transformers import PreTrainedModel

from ..blocks.packed import is_packed
from ..report.records import WeightsRecord

# Number of parameters to sample: models that were trained separately differ in almost every weight.
_MAX_VALUES = 128
# Spacing of float16 below its smallest normal number; dequantising differs by about as much between versions of a
# library. Training moves a weight by more.
_NOISE = 2.0**-24


def weights_record(model: PreTrainedModel) -> WeightsRecord:
    """Sample one weight from each of many parameters, at the same positions in every model with these parameters.

    Packed weights, weights on the meta device, NaN and infinity are left out.
    """
    at_hand = {
        name: parameter
        for name, parameter in model.named_parameters()
        if not is_packed(parameter) and parameter.device.type != "meta" and parameter.numel()
    }
    # Sorted by hash, because every n-th name could always be the same matrix of a block.
    names = sorted(at_hand, key=_hash)[:_MAX_VALUES]
    values = {name: _value(name, at_hand[name]) for name in names}
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    return WeightsRecord(torch.finfo(model.dtype).eps, finite)


def differing_weight(model: PreTrainedModel, record: WeightsRecord) -> str | None:
    """Return the first sampled parameter that differs, with both values; `None` if there is none.

    Between two precisions, a difference within the rounding of both is allowed, so very light training can go unseen.
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
