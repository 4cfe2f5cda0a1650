"""Quantised models: the method by which a model is quantised, and whether it can be saved after pruning."""

import re
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from ..blocks.packed import is_packed
from ..errors import UnsupportedModelError

# Models of these methods can be pruned as they are: transformers saves their packed weights and loads them again.
_SUPPORTED = ("bitsandbytes", "torchao")

# A model that is quantised while it is loaded has an unquantised checkpoint; one that was saved quantised has not.
_LATER = "load it without quantization_config, prune it, and quantise the result"
_BEFORE = "prune the checkpoint that it was made from, and quantise the result"

# Fields of quantisation configs that list modules to leave unquantised.
_SPARED = ("llm_int8_skip_modules", "modules_to_not_convert")

# transformers can dequantise these while it loads a checkpoint.
_UNDONE = {"gguf": "GgufConfig", "mxfp4": "Mxfp4Config", "fp8": "FineGrainedFP8Config"}


def check_quantisation(model: PreTrainedModel) -> None:
    """Refuse a quantised model that transformers could not save after pruning; the message says what to do instead."""
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None:
        _check_method(quantizer, str(quantisation_of(model)))
        return
    for path, weight in model.named_parameters():
        # Quantised in memory without transformers, or sharded over processes.
        if is_packed(weight):
            kind = type(weight).__name__ if type(weight) is not nn.Parameter else str(weight.dtype)
            raise UnsupportedModelError(
                f"The weight {path} is no plain tensor of floating-point numbers ({kind}), so it cannot be saved "
                "shortened; load the model unquantised on one device, prune it, and quantise or shard the result."
            )


def quantisation_of(model: PreTrainedModel) -> str | None:
    """Return the method by which a model is quantised, such as `"bitsandbytes"`, or `None`."""
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is None:
        return None
    method = getattr(quantizer.quantization_config, "quant_method", "unknown")
    return str(getattr(method, "value", method)).lower()


def _check_method(quantizer: Any, method: str) -> None:
    pre_quantized = getattr(quantizer, "pre_quantized", True)
    # transformers saves weights that it packed itself, but cannot save a checkpoint again that it loaded packed.
    if method in _SUPPORTED and not pre_quantized:
        config = quantizer.quantization_config
        listed = [name for field in _SPARED for name in getattr(config, field, None) or ()]
        spared = [name for name in listed if re.search(r"\.\d+(\.|$)", name)]
        if not spared:
            return
        raise UnsupportedModelError(
            f"The quantiser spares modules by the number of their block ({spared[0]}), which would be another block "
            f"after pruning; {_LATER}."
        )
    if method in _UNDONE:
        remedy = f"load it with quantization_config={_UNDONE[method]}(dequantize=True)"
    else:
        remedy = _BEFORE if pre_quantized else _LATER
    raise UnsupportedModelError(f"The model is quantised ({method}), which cannot be saved shortened; {remedy}.")
