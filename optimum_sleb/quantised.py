"""Quantised models: which way of quantising a model has, and what to do instead of pruning it so."""

from torch import nn
from transformers import PreTrainedModel

from .errors import UnsupportedModelError

# What is quantised while it is loaded has its dense checkpoint at hand; what was saved quantised has not.
_LATER = "load it without quantization_config, prune it, and quantise the result"
_BEFORE = "prune the checkpoint that it was made from, and quantise the result"

# A few methods can be undone while a checkpoint is loaded.
_UNDONE = {"gguf": "GgufConfig", "mxfp4": "Mxfp4Config", "fp8": "FineGrainedFP8Config"}


def check_not_quantised(model: PreTrainedModel) -> None:
    """Refuse a model whose weights are packed.

    A shortened model is proved right by building it anew from its config and running it on the same weights, which
    packed weights rarely allow (torchao's do, but transformers cannot save them a second time); and the lists of
    modules that a quantiser spares name blocks by number.

    Args:
        model: The model.

    Raises:
        UnsupportedModelError: If it is quantised; the message says what to do instead for this method.

    Example:
        ```python
        check_not_quantised(model)
        ```
    """
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None:
        method = getattr(quantizer.quantization_config, "quant_method", "unknown")
        method = str(getattr(method, "value", method)).lower()
        if method in _UNDONE:
            remedy = f"load it with quantization_config={_UNDONE[method]}(dequantize=True)"
        else:
            remedy = _BEFORE if getattr(quantizer, "pre_quantized", True) else _LATER
        raise UnsupportedModelError(f"The model is quantised ({method}), which cannot be saved shortened; {remedy}.")
    for path, weight in model.named_parameters():
        # Quantised in memory, behind the back of transformers; or sharded over processes.
        if type(weight) is not nn.Parameter or not weight.is_floating_point():
            kind = type(weight).__name__ if type(weight) is not nn.Parameter else str(weight.dtype)
            raise UnsupportedModelError(
                f"The weight {path} is no plain tensor of floating-point numbers ({kind}), so it cannot be saved "
                "shortened; load the model unquantised on one device, prune it, and quantise or shard the result."
            )
