"""Quantised models: which way of quantising a model has, and what to do instead of pruning it so."""

from torch import nn
from transformers import PreTrainedModel

from .errors import UnsupportedModelError

_LATER = "load it without quantization_config, prune it, and quantise the result"
_BEFORE = "prune the checkpoint that it was made from, and quantise the result"

# Methods that quantise while a model is loaded need no calibration, so the dense checkpoint is at hand; the others
# were calibrated block after block. A few can be undone while loading.
_REMEDIES = {
    "bitsandbytes": _LATER,
    "torchao": _LATER,
    "quanto": _LATER,
    "hqq": _LATER,
    "eetq": _LATER,
    "gguf": "load it with quantization_config=GgufConfig(dequantize=True)",
    "mxfp4": "load it with quantization_config=Mxfp4Config(dequantize=True)",
    "fp8": "load it with quantization_config=FineGrainedFP8Config(dequantize=True)",
}


def check_not_quantised(model: PreTrainedModel) -> None:
    """Refuse a model whose weights are packed.

    A shortened model is proved right by building it anew from its config and running it on the same weights, which
    packed weights do not allow; and the lists of modules that a quantiser spares name blocks by number.

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
        raise UnsupportedModelError(
            f"The model is quantised ({method}), which cannot be saved shortened; {_REMEDIES.get(method, _BEFORE)}."
        )
    for path, weight in model.named_parameters():
        # Quantised in memory, behind the back of transformers; or sharded over processes.
        if type(weight) is not nn.Parameter or not weight.is_floating_point():
            kind = type(weight).__name__ if type(weight) is not nn.Parameter else str(weight.dtype)
            raise UnsupportedModelError(
                f"The weight {path} is no plain tensor of floating-point numbers ({kind}), so it cannot be saved "
                "shortened; load the model unquantised on one device, prune it, and quantise or shard the result."
            )
