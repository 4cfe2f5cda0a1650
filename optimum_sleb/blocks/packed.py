"""Modules whose weights a quantiser has packed: a shortened model takes them over unchanged."""

from torch import nn
from transformers import PreTrainedModel


def is_packed(parameter: nn.Parameter) -> bool:
    """Tell whether a parameter is not a plain floating-point tensor: packed, or sharded over processes."""
    return type(parameter) is not nn.Parameter or not parameter.is_floating_point()


def packed_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules with packed weights by name; none for a model that is not quantised."""
    return {
        name: module
        for name, module in model.named_modules()
        if any(is_packed(parameter) for parameter in module.parameters(recurse=False))
    }


def adopt_packed_modules(template: PreTrainedModel, modules: dict[str, nn.Module]) -> None:
    """Put packed modules, by their new names, in place of the linear layers of the same size in a template."""
    layers = dict(template.named_modules())
    for name, module in modules.items():
        layer = layers.get(name)
        # Other layers are left as they are; the comparison of weights finds them.
        if isinstance(layer, nn.Linear) and _size(layer) == _size(module):
            template.set_submodule(name, module)


def _size(module: nn.Module) -> tuple[object, object]:
    return getattr(module, "in_features", None), getattr(module, "out_features", None)
