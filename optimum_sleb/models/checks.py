"""Checks that an object is a model that can be pruned and saved."""

from collections import defaultdict

from torch.nn.parallel import DataParallel, DistributedDataParallel
from transformers import PreTrainedModel

from ..blocks.devices import devices_of, hooks_of, moves_weights
from ..errors import UnsupportedModelError
from .quantised import check_quantisation


def check_model(model: object) -> None:
    """Raise UnsupportedModelError unless blocks can be taken from an object, and the result saved.

    Refused are wrappers, compiled models, encoder-decoder models, some quantised ones, undeclared shared weights, and
    weights that are not in memory.
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
    _check_compiled(model)
    check_quantisation(model)
    _check_devices(model)
    _check_sharing(model)


def _check_compiled(model: PreTrainedModel) -> None:
    # Compiled code is bound to the blocks that it was made from, and ignores hooks and stand-ins.
    for path, module in model.named_modules():
        if getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod"):
            raise UnsupportedModelError(
                f"{path or 'The model'} is compiled (torch.compile); load the model again without compiling it, and "
                "compile the pruned one."
            )


def _check_devices(model: PreTrainedModel) -> None:
    devices, hooks = devices_of(model), hooks_of(model)
    moving = [path for path, hook in hooks.items() if moves_weights(hook)]
    if moving or any(device.type == "meta" for device in devices):
        where = f" (hook on {moving[0] or 'the model'})" if moving else ""
        raise UnsupportedModelError(
            f"Not all weights of the model are in memory, for accelerate brings them when they are needed{where}; "
            "load it on one device (device_map='cuda'), or, if it is too large for that, in host memory (no "
            "device_map), and search with prune(..., device='cuda')."
        )
    if len(devices) > 1 and not hooks:
        raise UnsupportedModelError(
            f"The model is spread over {', '.join(sorted(map(str, devices)))}, and nothing moves its hidden states "
            "from one to the other; load it with device_map='auto', or on one device."
        )


def _check_sharing(model: PreTrainedModel) -> None:
    """Refuse weights that two modules share without the class declaring it: a checkpoint would lose that."""
    owners = defaultdict(list)
    for path, parameter in model.named_parameters(remove_duplicate=False):
        owners[id(parameter)].append(path)
    declared = getattr(model, "all_tied_weights_keys", None) or {}
    for paths in owners.values():
        undeclared = [path for path in paths if path not in declared]
        if len(undeclared) > 1:
            raise UnsupportedModelError(
                f"{undeclared[0]} and {undeclared[1]} are the same tensor, but {type(model).__name__} would load them "
                "as two; give each place its own copy (copy.deepcopy of the shared module), then prune."
            )
