"""Checks that an object is a model that can be pruned and saved."""

import copy
from collections import defaultdict
from itertools import chain

import torch
from torch import Tensor
from torch.nn.parallel import DataParallel, DistributedDataParallel
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from ..blocks.devices import devices_of, hooks_of, moves_weights
from ..blocks.forward import evaluating, logits_of, same_logits, vocab_size_of
from ..blocks.packed import is_packed, packed_modules
from ..blocks.shortening import text_config_of
from ..blocks.stack import probe_ids
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
    _check_tensors(model)
    _check_precision(model)


def _check_tensors(model: PreTrainedModel) -> None:
    """Refuse tensors that PyTorch does not let anybody change or train."""
    for path, tensor in chain(model.named_parameters(), model.named_buffers()):
        if tensor.is_inference():
            raise UnsupportedModelError(
                f"{path} was made in torch.inference_mode(), so it can be neither changed nor trained; load the model "
                "outside of it."
            )


def _check_precision(model: PreTrainedModel) -> None:
    """Refuse weights in another precision than that in which their checkpoint would be loaded."""
    dtypes = {path: one.dtype for path, one in model.named_parameters() if not is_packed(one)}
    if len(set(dtypes.values())) < 2:
        return
    with torch.device("meta"), no_init_weights():
        template = type(model)._from_config(copy.deepcopy(model.config), dtype=model.dtype)
    loaded = {path: one.dtype for path, one in template.named_parameters()}
    in_float32 = (*(model._keep_in_fp32_modules or ()), *(model._keep_in_fp32_modules_strict or ()))
    for path, dtype in dtypes.items():
        kept = dtype == torch.float32 and any(part in path for part in in_float32)
        if not kept and loaded.get(path, dtype) != dtype:
            raise UnsupportedModelError(
                f"{path} is in {dtype}, while {type(model).__name__} is in {model.dtype} and would be loaded so; give "
                f"the model one precision (model.to({model.dtype})), or load it in one (dtype=)."
            )


def head_is_untied(model: PreTrainedModel) -> bool:
    """Tell whether the head has weights of its own, although the config says that it shares the embeddings'."""
    if not getattr(model.config, "tie_word_embeddings", False) or packed_modules(model):
        return False
    try:
        head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    except NotImplementedError:  # a model's own code need not name its embeddings
        return False
    own, shared = getattr(head, "weight", None), getattr(embeddings, "weight", None)
    if not (isinstance(own, Tensor) and isinstance(shared, Tensor)):
        return False
    return own is not shared and not (own.shape == shared.shape and own.equal(shared.to(own.device, own.dtype)))


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


def check_causal_lm(model: PreTrainedModel) -> None:
    """Raise UnsupportedModelError unless a model predicts each next token from earlier tokens alone."""
    if vars(text_config_of(model.config)).get("rescale_every"):
        raise UnsupportedModelError(
            f"{type(model).__name__} rescales the weights of its blocks, by their number, while it runs; load it with "
            "rescale_every=0."
        )
    ids = probe_ids(model)
    changed = ids.clone()
    changed[0, -1] = (ids[0, -1] + 1) % vocab_size_of(model)
    name = type(model).__name__
    with evaluating(model):
        versions = {path: parameter._version for path, parameter in model.named_parameters()}
        try:
            logits, other = logits_of(model, ids), logits_of(model, changed)
        except (AttributeError, TypeError, ValueError) as error:
            raise UnsupportedModelError(
                f"{name} cannot be run on token ids alone ({error}), so it is not a causal language model; load the "
                "model with AutoModelForCausalLM."
            ) from error
        changed_weights = [path for path, weight in model.named_parameters() if weight._version != versions[path]]
    if changed_weights:
        raise UnsupportedModelError(
            f"{name} changes its weights while it runs (the first is {changed_weights[0]}), so what it would save is "
            "not what it computes with; switch that off in its config."
        )
    if not isinstance(logits, Tensor) or logits.shape[:2] != ids.shape or logits.shape[-1] < vocab_size_of(model):
        raise UnsupportedModelError(
            f"{name} gives no logits over its vocabulary for every token, so it is not a causal language model; load "
            "the model with AutoModelForCausalLM."
        )
    # Minus infinity is allowed, because it can forbid a token.
    if (logits.isnan() | logits.isposinf() | other.isnan() | other.isposinf()).any():
        remedy = "check its weights"
        if model.dtype == torch.float16:
            remedy = "float16 does not hold its hidden states, so load it with dtype='bfloat16' or 'float32'"
        raise UnsupportedModelError(f"{name} gives logits that are NaN or infinite for a few tokens; {remedy}.")
    tolerance = _share_of_rounding(model) * float(logits[logits.isfinite()].abs().max())
    if not torch.allclose(logits[:, :-1].float(), other[:, :-1].float(), rtol=1e-3, atol=tolerance):
        raise UnsupportedModelError(
            f"{name} lets a token's logits depend on later tokens, so it is not a causal language model; if it is a "
            "BERT-like model, load it with is_decoder=True."
        )


def _share_of_rounding(model: PreTrainedModel) -> float:
    """Return the change of earlier logits, as a share of the largest, that is still taken for rounding."""
    # In tiny BERT-like models, looking ahead at one token changes logits by 0.04 of the largest or more.
    if packed_modules(model):
        return 5e-2  # eight-bit kernels scale the activations of all tokens together
    return 1e-3 if model.dtype in (torch.float32, torch.float64) else 2e-2


def check_saving_changes_nothing(model: PreTrainedModel) -> None:
    """Raise UnsupportedModelError if a quantised model computes something else after `state_dict()`."""
    if not packed_modules(model):
        return
    # On some CPUs bitsandbytes repacks weights for its kernels and packs them back for saving, which is not exact for
    # weights that were quantised twice.
    ids = probe_ids(model)
    with evaluating(model):
        before = logits_of(model, ids)
        model.state_dict()
        after = logits_of(model, ids)
    if not same_logits(after, before):
        raise UnsupportedModelError(
            f"The quantised weights of {type(model).__name__} change when they are saved from this device; load it on "
            "a GPU, without double quantisation, or unquantised."
        )
