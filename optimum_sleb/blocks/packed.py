"""Modules whose weights a quantiser has packed: a shortened model takes them over as they are."""

from torch import nn
from transformers import PreTrainedModel


def is_packed(parameter: nn.Parameter) -> bool:
    """Whether a parameter is anything else than a plain tensor of floating-point numbers.

    Args:
        parameter: The parameter.

    Returns:
        Whether it is packed (or sharded over processes).

    Example:
        >>> import torch
        >>> is_packed(nn.Parameter(torch.zeros(2))), is_packed(nn.Parameter(torch.zeros(2).int(), requires_grad=False))
        (False, True)
    """
    return type(parameter) is not nn.Parameter or not parameter.is_floating_point()


def packed_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The modules of a model that hold packed weights.

    Args:
        model: The model.

    Returns:
        The modules by name; none for a model that is not quantised.

    Example:
        ```python
        packed_modules(model)["model.layers.0.mlp.down_proj"]  # Linear4bit(...)
        ```
    """
    return {
        name: module
        for name, module in model.named_modules()
        if any(is_packed(parameter) for parameter in module.parameters(recurse=False))
    }


def adopt_packed_modules(template: PreTrainedModel, modules: dict[str, nn.Module]) -> None:
    """Put packed modules into a model that was built from a config, where it has linear layers of the same size.

    A config builds plain layers; how a quantiser packs them is not for us to repeat. Where a layer of another size, or
    none, stands in that place, it is left, and the comparison of weights tells.

    Args:
        template: What `build_shortened` built; edited in place.
        modules: The packed modules, by the names that they have there.

    Example:
        ```python
        adopt_packed_modules(template, {"model.layers.0.mlp.down_proj": packed})
        ```
    """
    layers = dict(template.named_modules())
    for name, module in modules.items():
        layer = layers.get(name)
        if isinstance(layer, nn.Linear) and _size(layer) == _size(module):
            template.set_submodule(name, module)


def _size(module: nn.Module) -> tuple[object, object]:
    return getattr(module, "in_features", None), getattr(module, "out_features", None)
