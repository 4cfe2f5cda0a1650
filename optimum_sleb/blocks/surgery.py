"""Taking decoder blocks out of a model: the same cut in a live model and in one rebuilt from its config."""

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from ..errors import UnsupportedModelError
from .folding import fold_of
from .forward import reason_of
from .packed import adopt_packed_modules, packed_modules
from .shortening import shorten_config
from .stack import DecoderStack

# Flags that say how a module is being run, not what it computes.
_RUN_STATE = {"training", "gradient_checkpointing", "is_gradient_checkpointing"}


def build_shortened(
    model: PreTrainedModel,
    stack: DecoderStack,
    kept: Sequence[int],
    *,
    real_buffers: bool = True,
    dtype: torch.dtype | None = None,
) -> PreTrainedModel:
    """Build the shortened model anew from its edited config, without weights.

    Args:
        model: The model with all its blocks.
        stack: Its decoder blocks.
        kept: Indices of the blocks that stay, ascending.
        real_buffers: Compute the buffers; without, everything is on the meta device, which is several times faster.
        dtype: The precision in which the model is kept, where it computes in another for a while.

    Returns:
        A model whose parameters are on the meta device, but for packed ones, which are those of the model.

    Raises:
        UnsupportedModelError: If the edited config is not accepted.

    Example:
        ```python
        template = build_shortened(model, stack, kept=[0, 1, 3])
        ```
    """
    device = init_empty_weights(include_buffers=False) if real_buffers else torch.device("meta")
    config = copy.deepcopy(model.config)
    try:
        shorten_config(config, kept)
        # Through the form in which it is saved, as it will be read back: some configs derive fields when loaded.
        attention = attention_of(config)
        config = type(config).from_dict(config.to_diff_dict())
        config._attn_implementation = attention
        with device, no_init_weights():
            template = type(model)._from_config(config, dtype=dtype or model.dtype)
        if real_buffers:
            _compute_buffers(template)
    except Exception as error:  # whatever a family's own code raises about a layout that it does not allow
        reason = reason_of(error)
        raise UnsupportedModelError(f"its config does not allow the remaining layout ({reason})") from error
    packed = {new_name(name, stack.path, kept): module for name, module in packed_modules(model).items()}
    adopt_packed_modules(template, {name: module for name, module in packed.items() if name is not None})
    return template


def _compute_buffers(template: PreTrainedModel) -> None:
    """Give a model the buffers that no checkpoint holds, as `from_pretrained` does.

    It computes them anew where the family knows how (`_init_weights`), and in full precision, while a model in half
    precision is built in it. The rest, marked as loaded, is left alone.
    """
    for tensor in [*template.parameters(), *template.state_dict(keep_vars=True).values()]:
        tensor._is_hf_initialized = True
    template.initialize_weights()


def attention_of(config: PreTrainedConfig) -> str | dict[str, Any] | None:
    """Which implementation of attention each part of a model runs.

    Args:
        config: The config of the model.

    Returns:
        What `from_pretrained` takes as `attn_implementation`: one name, or for a composite config the names of all
        its parts; the whole model's is under `""`.

    Example:
        >>> from transformers import LlamaConfig
        >>> attention_of(LlamaConfig(attn_implementation="eager"))
        'eager'
    """
    parts = {name: getattr(config, name, None) for name in config.sub_configs}
    if all(part is None for part in parts.values()):
        return config._attn_implementation
    own = {"": config._attn_implementation}
    return own | {name: attention_of(part) for name, part in parts.items() if part is not None}


def kept_state(
    model: PreTrainedModel, stack: DecoderStack, kept: Sequence[int], template: PreTrainedModel
) -> dict[str, Tensor]:
    """The tensors that a shortened model takes over, under the names they have there.

    Tensors of the kept blocks and everything around the blocks are shared, not copied. A tensor around the blocks that
    has a slice for each of them (Gemma 3n's embeddings per layer) comes with the slices of the kept ones.

    Args:
        model: The model with all its blocks.
        stack: Its decoder blocks.
        kept: Indices of the blocks that stay, ascending.
        template: What `build_shortened` gave for them.

    Returns:
        Tensors by name.

    Example:
        ```python
        template.load_state_dict(kept_state(model, stack, kept, template), assign=True)
        ```
    """
    wanted = template.state_dict()
    state = {}
    for name, tensor in model.state_dict().items():
        place = new_name(name, stack.path, kept)
        if place is not None:
            goal = wanted[place].shape if place in wanted else tensor.shape
            state[place] = _slices_of(tensor, goal, len(stack), kept)
    return state


def cut_out(model: PreTrainedModel, stack: DecoderStack, kept: Sequence[int], template: PreTrainedModel) -> None:
    """Take blocks out of a model and its config, in place.

    Args:
        model: The model.
        stack: Its decoder blocks; the list gets shorter.
        kept: Indices of the blocks that stay, ascending.
        template: What `build_shortened` gave; from it the remaining modules learn their new indices and sizes.

    Example:
        ```python
        cut_out(model, stack, kept, template=build_shortened(model, stack, kept))
        ```
    """
    wanted = template.state_dict()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name in wanted and not name.startswith(f"{stack.path}."):
            tensor.data = _slices_of(tensor.data, wanted[name].shape, len(stack), kept)
    shorten_config(model.config, kept)
    for index in sorted(set(range(len(stack))) - set(kept), reverse=True):
        del stack.blocks[index]
    for path, attribute, old, new in list(differing_attributes(model, template)):
        # In the blocks, whole numbers are their own indices, by which they find their slot in the cache; around the
        # blocks, and in lists, it is the stack as a whole that is described (`is_renumbered`). The rest was folded or
        # refused before.
        module = model.get_submodule(path)
        in_block = path.startswith(f"{stack.path}.")
        fold = fold_of(module, attribute) if in_block else None
        if fold is not None:
            fold(module, old, new)
        if fold is not None or not in_block or type(new) in (int, list, tuple, set, dict):
            setattr(module, attribute, new)
    # Some models tie weights by block number.
    for path, module in template.named_modules():
        for attribute in ("_tied_weights_keys", "all_tied_weights_keys"):
            if attribute in vars(module):
                setattr(model.get_submodule(path), attribute, getattr(module, attribute))


def differing_attributes(
    model: nn.Module, template: nn.Module, rename: "Sequence[tuple[str, str]] | None" = None
) -> Iterator[tuple[str, str, Any, Any]]:
    """Plain attributes in which two models with the same modules differ.

    Args:
        model: A model.
        template: Another one.
        rename: Names of modules in the one and the other; by default every module has the same name in both.

    Yields:
        Name of the module, name of the attribute, its value in `model`, its value in `template`.

    Example:
        ```python
        for path, attribute, mine, theirs in differing_attributes(model, template):
            print(path, attribute, mine, theirs)  # model.layers.5.self_attn layer_idx 6 5
        ```
    """
    twins = dict(template.named_modules())
    modules = dict(model.named_modules())
    for mine, theirs in rename if rename is not None else [(path, path) for path in modules]:
        if theirs not in twins:
            continue
        other = vars(twins[theirs])
        for attribute, value in vars(modules[mine]).items():
            if attribute.startswith("_") or attribute in _RUN_STATE or attribute not in other:
                continue
            if _is_plain(value) and _is_plain(other[attribute]) and not _same(value, other[attribute]):
                yield theirs, attribute, value, other[attribute]


def module_names(model: nn.Module, path: str, kept: Sequence[int]) -> list[tuple[str, str]]:
    """Names of the modules that stay, before and after a cut.

    Args:
        model: The model with all its blocks.
        path: Name of the list of blocks.
        kept: Indices of the blocks that stay, ascending.

    Returns:
        Pairs of names.

    Example:
        ```python
        module_names(model, "model.layers", [0, 2])[-1]  # ("lm_head", "lm_head")
        ```
    """
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
        return math.isclose(one, other, rel_tol=1e-9)  # scales that come out of square roots
    return bool(one == other)


def new_name(name: str, path: str, kept: Sequence[int]) -> str | None:
    """The name of a tensor or module after a cut.

    Args:
        name: Its name before.
        path: Name of the list of blocks.
        kept: Indices of the blocks that stay, ascending.

    Returns:
        Its name; `None` where it goes with its block.

    Example:
        >>> new_name("model.layers.5.mlp", "model.layers", [0, 2, 5]), new_name("model.layers.3", "model.layers", [0])
        ('model.layers.2.mlp', None)
    """
    if not name.startswith(f"{path}."):
        return name
    index, dot, rest = name.removeprefix(f"{path}.").partition(".")
    return f"{path}.{kept.index(int(index))}{dot}{rest}" if int(index) in kept else None


def _slices_of(tensor: Tensor, goal: torch.Size, count: int, kept: Sequence[int]) -> Tensor:
    """The tensor, or its slices of the kept blocks where the goal is a tensor with a slice for each of them."""
    if tensor.shape == goal or tensor.dim() != len(goal):
        return tensor
    dims = [dim for dim in range(tensor.dim()) if tensor.shape[dim] != goal[dim]]
    size = tensor.shape[dims[0]] // count
    if len(dims) > 1 or size * count != tensor.shape[dims[0]] or size * len(kept) != goal[dims[0]]:
        return tensor
    pieces = tensor.split(size, dim=dims[0])
    return torch.cat([pieces[index] for index in kept], dim=dims[0])
