"""Models that accelerate has spread over several devices, where hooks move inputs to the weights."""

import torch
from accelerate.hooks import AlignDevicesHook, ModelHook, SequentialHook
from transformers import PreTrainedModel


def hooks_of(model: PreTrainedModel) -> dict[str, ModelHook]:
    """Return accelerate's hooks by module name; none for a model on one device."""
    return {path: module._hf_hook for path, module in model.named_modules() if hasattr(module, "_hf_hook")}


def moves_weights(hook: ModelHook) -> bool:
    """Tell whether a hook moves weights too, so that they are not in memory before the module runs."""
    hooks = hook.hooks if isinstance(hook, SequentialHook) else [hook]
    return any(not isinstance(one, AlignDevicesHook) or one.offload for one in hooks)


def devices_of(model: PreTrainedModel) -> list[torch.device]:
    """Return the devices of a model's weights; the first is that of its first weight."""
    return list(dict.fromkeys(parameter.device for parameter in model.parameters()))
