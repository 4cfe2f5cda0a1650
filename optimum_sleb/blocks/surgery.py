"""How a block goes: removal of decoder blocks from a live model, and from one that is rebuilt from its config."""

import copy
import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import init_empty_weights
from accelerate.hooks import add_hook_to_module
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from ..errors import UnsupportedModelError, VerificationError
from . import forward
from .devices import hooks_of
from .folding import find_fold
from .forward import evaluating, logits_of, message_or_raise
from .packed import adopt_packed_modules, packed_modules
from .shortening import shorten_config
from .stack import DecoderStack, probe_ids

# Attributes that tell how a module is run, not what it computes.
_RUN_STATE = {"training", "gradient_checkpointing", "is_gradient_checkpointing"}


def remove_blocks(model: PreTrainedModel, stack: DecoderStack, removed: Collection[int]) -> None:
    """Remove blocks from a model, in place; raise VerificationError if its logits are not those with them skipped."""
    kept = [index for index in range(len(stack)) if index not in set(removed)]
    ids = probe_ids(model)
    with evaluating(model), stack.skipping(set(removed)):
        expected = logits_of(model, ids)
    template = build_shortened(model, stack, kept)
    fill(template, model, kept_state(model, stack, kept, template))
    copy_device_hooks(template, model, stack, kept)
    with evaluating(template):
        logits_of(template, ids)  # some families change attributes or modules when they run
    renumber_device_map(model, stack, kept)
    cut_in_place(model, stack, kept, template)
    with evaluating(model):
        logits = logits_of(model, ids)
    if not forward.same_logits(logits, expected):
        raise VerificationError(
            f"The shortened {type(model).__name__} does not compute what was measured with its blocks skipped, so its "
            "blocks stay; please report this architecture."
        )


def build_shortened(
    model: PreTrainedModel,
    stack: DecoderStack,
    kept: Sequence[int],
    *,
    real_buffers: bool = True,
    stored_dtype: torch.dtype | None = None,
) -> PreTrainedModel:
    """Build the shortened model from its edited config, with parameters on the meta device, except the packed ones.

    Without `real_buffers` all is on the meta device, which is several times faster. `stored_dtype` is that of the
    weights, where the model computes in another for a while. Raise UnsupportedModelError if the config fails.
    """
    device = init_empty_weights(include_buffers=False) if real_buffers else torch.device("meta")
    fields = shortened_fields(model.config, kept)
    with _refusing_layout():
        # Convert the config as saving and loading do: some configs derive fields when they are loaded.
        config = type(model.config).from_dict(fields)
        config._attn_implementation = attn_implementation_of(model.config)
        with device, no_init_weights():
            template = type(model)._from_config(config, dtype=stored_dtype or model.dtype)
        if real_buffers:
            _compute_buffers(template)
    packed = {new_name(name, stack.path, kept): module for name, module in packed_modules(model).items()}
    adopt_packed_modules(template, {name: module for name, module in packed.items() if name is not None})
    return template


def shortened_fields(config: PreTrainedConfig, kept: Sequence[int]) -> dict[str, Any]:
    """Return what is saved of the config of a shortened model, which depends on nothing else of the dense one's.
    Raise UnsupportedModelError if the config fails."""
    with _refusing_layout():
        shortened = copy.deepcopy(config)
        shorten_config(shortened, kept)
        return shortened.to_diff_dict()


@contextmanager
def _refusing_layout() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # from a family's own code, which does not allow this layout
        message = message_or_raise(error)
        raise UnsupportedModelError(f"its config does not allow the remaining layout ({message})") from error


def _compute_buffers(template: PreTrainedModel) -> None:
    """Compute the buffers that no checkpoint holds, as `from_pretrained` does."""
    # `initialize_weights` skips what is marked as loaded. Buffers that the family can compute (`_init_weights`) are
    # computed anew in full precision; `_from_config` has built them in that of the model.
    for tensor in [*template.parameters(), *template.state_dict(keep_vars=True).values()]:
        tensor._is_hf_initialized = True
    template.initialize_weights()


def attn_implementation_of(config: PreTrainedConfig) -> str | dict[str, Any] | None:
    """Return a config's attention in the form that `attn_implementation` of `from_pretrained` takes.

    >>> from transformers import LlamaConfig
    >>> attn_implementation_of(LlamaConfig(attn_implementation="eager"))
    'eager'
    """
    parts = {name: getattr(config, name, None) for name in config.sub_configs}
    if all(part is None for part in parts.values()):
        return config._attn_implementation
    own = {"": config._attn_implementation}
    # For a composite config one name per part; "" is the whole model.
    return own | {name: attn_implementation_of(part) for name, part in parts.items() if part is not None}


def kept_state(
    model: PreTrainedModel, stack: DecoderStack, kept: Sequence[int], template: PreTrainedModel
) -> dict[str, Tensor]:
    """Return the tensors that a shortened model takes over, by their new names; shared, not copied, unless sliced."""
    # Some tensors outside the blocks have a slice per block (Gemma 3n's embeddings per layer); these are sliced.
    shapes = {name: tensor.shape for name, tensor in template.state_dict().items()}
    state = {}
    for old, tensor in model.state_dict().items():
        new = new_name(old, stack.path, kept)
        if new is not None:
            state[new] = _slices_of(tensor, shapes.get(new, tensor.shape), len(stack), kept)
    return state


def fill(template: PreTrainedModel, model: PreTrainedModel, state: dict[str, Tensor]) -> None:
    """Make a template runnable: share the model's weights, move its buffers to the model's device and precision."""
    # While a half-precision model computes in float32, its buffers are float32 copies of rounded values.
    widened = template.dtype != model.dtype
    # Packed modules already hold their weights; a state dict cannot carry them over.
    packed = tuple(f"{name}." for name in packed_modules(template))
    not_packed = {name: tensor for name, tensor in state.items() if not name.startswith(packed)}
    template.load_state_dict(not_packed, assign=True, strict=not packed)
    for module in template.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                is_half = buffer.dtype in (torch.bfloat16, torch.float16)
                module._buffers[name] = buffer.to(model.device, model.dtype if widened and is_half else None)


def copy_device_hooks(
    template: PreTrainedModel, model: PreTrainedModel, stack: DecoderStack, kept: Sequence[int]
) -> None:
    """Give a shortened model the hooks of the dense model whose weights it shares; do nothing without hooks."""
    hooks = hooks_of(model)
    for old, new in kept_module_names(model, stack.path, kept):
        if old in hooks:
            add_hook_to_module(template.get_submodule(new), copy.copy(hooks[old]))


def cut_in_place(model: PreTrainedModel, stack: DecoderStack, kept: Sequence[int], template: PreTrainedModel) -> None:
    """Remove blocks from a model and its config, in place; new indices and sizes are read from the template."""
    shapes = {name: tensor.shape for name, tensor in template.state_dict().items()}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name in shapes and not name.startswith(f"{stack.path}."):
            tensor.data = _slices_of(tensor.data, shapes[name], len(stack), kept)
    shorten_config(model.config, kept)
    for index in sorted(set(range(len(stack))) - set(kept), reverse=True):
        del stack.blocks[index]
    for path, attribute, old, new in list(differing_attributes(model, template)):
        # Integers in a block are its index, by which it finds its slot in the cache; lists, and attributes outside the
        # blocks, describe the whole stack (`only_holds_position`). Others are folded, or were refused before.
        module = model.get_submodule(path)
        in_block = path.startswith(f"{stack.path}.")
        fold = find_fold(module, attribute) if in_block else None
        if fold is not None:
            fold(module, old, new)
        if fold is not None or not in_block or type(new) in (int, list, tuple, set, dict):
            setattr(module, attribute, new)
    # Some models tie weights by block number.
    for path, module in template.named_modules():
        for attribute in ("_tied_weights_keys", "all_tied_weights_keys"):
            if attribute in vars(module):
                setattr(model.get_submodule(path), attribute, getattr(module, attribute))


def renumber_device_map(model: PreTrainedModel, stack: DecoderStack, kept: Sequence[int]) -> None:
    """Renumber the kept blocks in `hf_device_map`, in place; do nothing where the model has none."""
    devices = getattr(model, "hf_device_map", None)
    if devices is None:
        return
    renamed = {new_name(name, stack.path, kept): device for name, device in devices.items()}
    model.hf_device_map = {name: device for name, device in renamed.items() if name is not None}


def differing_attributes(
    model: nn.Module, template: nn.Module, names: "Sequence[tuple[str, str]] | None" = None
) -> Iterator[tuple[str, str, Any, Any]]:
    """Yield (module name, attribute, value in `model`, value in `template`) where plain attributes differ.

    The module name is that in `template`; `names` has pairs of names, by default the same in both.
    """
    of_model, of_template = plain_attributes(model), plain_attributes(template)
    return differences(of_model, of_template, [(path, path) for path in of_model] if names is None else names)


def plain_attributes(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return the numbers, strings, and collections of these, that each module holds, by name of the module."""
    return {
        path: {
            attribute: value
            for attribute, value in vars(module).items()
            if not attribute.startswith("_") and attribute not in _RUN_STATE and _is_plain(value)
        }
        for path, module in model.named_modules()
    }


def differences(
    of_model: dict[str, dict[str, Any]], of_template: dict[str, dict[str, Any]], names: Sequence[tuple[str, str]]
) -> Iterator[tuple[str, str, Any, Any]]:
    """Yield as `differing_attributes` does, from the plain attributes of both."""
    for old, new in names:
        template_values = of_template.get(new, {})
        for attribute, value in of_model[old].items():
            if attribute in template_values and not _same(value, template_values[attribute]):
                yield new, attribute, value, template_values[attribute]


def kept_module_names(model: nn.Module, path: str, kept: Sequence[int]) -> list[tuple[str, str]]:
    """Return pairs of names, before and after the removal, of the modules that stay."""
    renamed = [(name, new_name(name, path, kept)) for name, _ in model.named_modules()]
    return [(old, new) for old, new in renamed if new is not None]


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple | set):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is None or type(value) in (bool, int, float, str)


def _same(one: Any, other: Any) -> bool:
    if type(one) is float and type(other) is float:
        return math.isclose(one, other, rel_tol=1e-9)  # scales may be results of square roots
    return bool(one == other)


def new_name(name: str, path: str, kept: Sequence[int]) -> str | None:
    """Return the name of a tensor or module after a removal, or None where it goes with its block.

    >>> new_name("model.layers.5.mlp", "model.layers", [0, 2, 5]), new_name("model.layers.3", "model.layers", [0])
    ('model.layers.2.mlp', None)
    """
    if not name.startswith(f"{path}."):
        return name
    index, dot, rest = name.removeprefix(f"{path}.").partition(".")
    return f"{path}.{kept.index(int(index))}{dot}{rest}" if int(index) in kept else None


def _slices_of(tensor: Tensor, shape: torch.Size, num_blocks: int, kept: Sequence[int]) -> Tensor:
    """Return the slices of the kept blocks where the tensor has one per block, else the tensor itself."""
    dim = sliced_dim(tensor.shape, shape, num_blocks, len(kept))
    if dim is None:
        return tensor
    pieces = tensor.split(tensor.shape[dim] // num_blocks, dim=dim)
    return torch.cat([pieces[index] for index in kept], dim=dim)


def sliced_dim(shape: torch.Size, shorter: torch.Size, num_blocks: int, num_kept: int) -> int | None:
    """Return the dimension that has a slice per block, of which some are kept; None where none does.

    >>> sliced_dim(torch.Size([8, 12]), torch.Size([8, 9]), num_blocks=4, num_kept=3)
    1
    """
    if len(shape) != len(shorter):
        return None
    dims = [dim for dim in range(len(shape)) if shape[dim] != shorter[dim]]
    if len(dims) != 1:
        return None
    size = shape[dims[0]] // num_blocks
    fits = (size * num_blocks, size * num_kept) == (shape[dims[0]], shorter[dims[0]])
    return dims[0] if fits else None
