"""Models that accelerate has spread over several devices, where hooks move inputs to the weights."""

import copy
from collections.abc import Sequence

import torch
from accelerate.hooks import AlignDevicesHook, ModelHook, SequentialHook, add_hook_to_module
from transformers import PreTrainedModel

from .stack import DecoderStack
from .surgery import module_names, new_name


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


def spread_alike(template: PreTrainedModel, model: PreTrainedModel, stack: DecoderStack, kept: Sequence[int]) -> None:
    """Give a shortened model the hooks of the dense model whose weights it shares; do nothing without hooks."""
    hooks = hooks_of(model)
    for mine, theirs in module_names(model, stack.path, kept) if hooks else []:
        if mine in hooks:
            add_hook_to_module(template.get_submodule(theirs), copy.copy(hooks[mine]))


def rename_devices(model: PreTrainedModel, stack: DecoderStack, kept: Sequence[int]) -> None:
    """Renumber the kept blocks in `hf_device_map`, in place; do nothing where the model has none."""
    devices = getattr(model, "hf_device_map", None)
    if devices is None:
        return
    renamed = {new_name(name, stack.path, kept): device for name, device in devices.items()}
    model.hf_device_map = {name: device for name, device in renamed.items() if name is not None}
