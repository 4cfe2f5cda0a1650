"""Telling a model that can be pruned from what only looks like one."""

from torch.nn.parallel import DataParallel, DistributedDataParallel
from transformers import PreTrainedModel

from .errors import UnsupportedModelError


def check_model(model: object) -> None:
    """Make sure that an object is a model from which blocks can be taken and which can then be saved.

    Args:
        model: What the caller passed as a model.

    Raises:
        UnsupportedModelError: If it is a wrapper, quantised, spread over devices, or no decoder-only model.

    Example:
        ```python
        check_model(model)
        ```
    """
    name = type(model).__name__
    if type(model).__module__.partition(".")[0] == "peft" or getattr(model, "_hf_peft_config_loaded", False):
        raise UnsupportedModelError(
            f"{name} carries PEFT adapters, which are bound to block numbers; merge them first "
            "(model = model.merge_and_unload())."
        )
    if hasattr(model, "_orig_mod"):
        raise UnsupportedModelError(
            "The model is wrapped by torch.compile; pass the model inside (model._orig_mod) and compile the result."
        )
    if isinstance(model, DataParallel | DistributedDataParallel):
        raise UnsupportedModelError(f"The model is wrapped in {name}; pass the model inside (model.module).")
    if not isinstance(model, PreTrainedModel):
        raise UnsupportedModelError(f"{name} is not a transformers.PreTrainedModel; load one from a checkpoint.")
    if model.config.is_encoder_decoder:
        raise UnsupportedModelError(f"{name} is an encoder-decoder model; only decoder-only models are supported.")
    _check_weights(model)


def _check_weights(model: PreTrainedModel) -> None:
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None:
        method = str(getattr(quantizer.quantization_config, "quant_method", "unknown")).rpartition(".")[2].lower()
        remedy = (
            "load it with quantization_config=GgufConfig(dequantize=True)"
            if method == "gguf"
            else "load the unquantised checkpoint, prune it, and quantise the result"
        )
        raise UnsupportedModelError(f"The model is quantised ({method}), which cannot be saved shortened; {remedy}.")
    devices = {parameter.device for parameter in model.parameters()}
    if any(device.type == "meta" for device in devices) or len(devices) > 1:
        raise UnsupportedModelError(
            f"The model is spread over {', '.join(sorted(map(str, devices)))}; load it on one device "
            "(device_map='cuda', or no device_map for the CPU)."
        )
