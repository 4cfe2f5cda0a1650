"""Models that accelerate has spread over several devices: each module moves its inputs to where its weights lie."""

import copy
from collections.abc import Sequence

import torch
from accelerate.hooks import AlignDevicesHook, ModelHook, SequentialHook, add_hook_to_module
from transformers import PreTrainedModel

from .stack import DecoderStack
from .surgery import module_names, new_name


def hooks_of(model: PreTrainedModel) -> dict[str, ModelHook]:
    """The hooks by which accelerate moves inputs, or weights, between devices while a model runs.

    Args:
        model: The model.

    Returns:
        Hooks by the name of their module; none for a model that lies on one device.

    Example:
        ```python
        hooks_of(model)  # {"": AlignDevicesHook(...), "model.layers.0": AlignDevicesHook(...), ...}
        ```
    """
    return {path: module._hf_hook for path, module in model.named_modules() if hasattr(module, "_hf_hook")}


def moves_weights(hook: ModelHook) -> bool:
    """Whether a hook moves more than inputs and outputs: then the weights are not there before the module runs.

    Args:
        hook: The hook.

    Returns:
        Whether it does.

    Example:
        >>> moves_weights(AlignDevicesHook(execution_device=0))
        False
    """
    hooks = hook.hooks if isinstance(hook, SequentialHook) else [hook]
    return any(not isinstance(one, AlignDevicesHook) or one.offload for one in hooks)


def devices_of(model: PreTrainedModel) -> list[torch.device]:
    """The devices on which a model's weights lie.

    Args:
        model: The model.

    Returns:
        The devices; that of its first weight is the first.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> devices_of(GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=40)))
        [device(type='cpu')]
    """
    return list(dict.fromkeys(parameter.device for parameter in model.parameters()))


def spread_alike(template: PreTrainedModel, model: PreTrainedModel, stack: DecoderStack, kept: Sequence[int]) -> None:
    """Let a shortened model run on the devices on which the weights lie that it shares.

    Args:
        template: The shortened model, with its weights.
        model: The model with all its blocks; where it is not spread, nothing happens.
        stack: Its decoder blocks.
        kept: Indices of the blocks that stay, ascending.

    Example:
        ```python
        spread_alike(template, model, stack, kept=[0, 1, 3])
        ```
    """
    hooks = hooks_of(model)
    for mine, theirs in module_names(model, stack.path, kept) if hooks else []:
        if mine in hooks:
            add_hook_to_module(template.get_submodule(theirs), copy.copy(hooks[mine]))


def rename_devices(model: PreTrainedModel, stack: DecoderStack, kept: Sequence[int]) -> None:
    """Give the blocks that stay their new numbers in the map of devices that transformers keeps, in place.

    Args:
        model: The model; where it has no such map, nothing happens.
        stack: Its decoder blocks.
        kept: Indices of the blocks that stay, ascending.

    Example:
        ```python
        rename_devices(model, stack, kept=[0, 2])  # {"model.layers.2": 1} becomes {"model.layers.1": 1}
        ```
    """
    devices = getattr(model, "hf_device_map", None)
    if devices is None:
        return
    renamed = {new_name(name, stack.path, kept): device for name, device in devices.items()}
    model.hf_device_map = {name: device for name, device in renamed.items() if name is not None}
