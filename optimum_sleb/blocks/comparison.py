"""What is left of a model against what its edited config calls for: names, shapes, attributes; nothing is run."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from .folding import find_fold
from .packed import packed_modules
from .renumbering import only_holds_position
from .rules import PERIODS, RULES
from .shortening import text_config_of
from .stack import DecoderStack
from .surgery import build_shortened, differences, new_name, plain_attributes, shortened_fields, sliced_dim


class Inventory:
    """Shapes of a model's tensors and plain attributes of its modules, by name: read once, compared often."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        self.attributes = plain_attributes(model)


class Comparison:
    """Comparison of a model, without some blocks or others, with what is rebuilt; what all of them need is made once.
    `stored_dtype` is that of the weights, where the model computes in another for a while."""

    def __init__(self, model: PreTrainedModel, stack: DecoderStack, stored_dtype: torch.dtype | None = None) -> None:
        self._model = model
        self._stack = stack
        self._stored_dtype = stored_dtype
        self._last: tuple[dict[str, Any], Inventory] | None = None  # config and shortened model

    def template(self, kept: Sequence[int]) -> Inventory:
        """Return the shortened model, without weights; raise UnsupportedModelError if its config fails."""
        if self._has_packed_weights:  # these are taken from the kept blocks, which differ
            return self._build(kept)
        # Removals that come to the same config, one after the other, come to the same model.
        fields = shortened_fields(self._model.config, kept)
        if self._last is None or self._last[0] != fields:
            self._last = fields, self._build(kept)
        return self._last[1]

    def difference_in_weights(self, template: Inventory, kept: Sequence[int]) -> str | None:
        """Compare names and shapes of the remaining weights with those that the edited config calls for."""
        wanted, shapes = template.shapes, {}
        for old, shape in self._shapes.items():
            new = new_name(old, self._stack.path, kept)
            if new is not None:
                fits = new in wanted and sliced_dim(shape, wanted[new], len(self._stack), len(kept)) is not None
                shapes[new] = wanted[new] if fits else shape
        differing = [name for name in sorted(shapes.keys() | wanted.keys()) if shapes.get(name) != wanted.get(name)]
        if not differing:
            return None
        return (
            f"the remaining blocks would need other weights at their new places ({len(differing)} differ, the first "
            f"is {differing[0]}), because this architecture builds its blocks by position"
            + _position_fields(self._model)
        )

    def difference_in_constants(self, template: Inventory, kept: Sequence[int]) -> str | None:
        """Compare the plain attributes of blocks that move up; those that are folded, or hold positions, may differ.
        Raise UnsupportedModelError if the dense model's own config fails."""
        for path, attribute, old, new in _differences(self._dense, template, self._stack, kept):
            place, _, part = path.removeprefix(f"{self._stack.path}.").partition(".")
            if only_holds_position(self._dense_blocks, kept, int(place), part, attribute, new):
                continue
            if find_fold(template.model.get_submodule(path), attribute) is None:
                return _as_reason(path, attribute, old, new)
        return None

    def difference_from_itself(self, template: Inventory) -> str | None:
        """Compare the plain attributes of the model's blocks as it is with those of the rebuilt one, of all blocks."""
        everything = range(len(self._stack))
        for path, attribute, old, new in _differences(Inventory(self._model), template, self._stack, everything):
            # These differ only by earlier runs, such as the longest window seen.
            if type(new) in (int, list, tuple, set, dict):
                continue
            if find_fold(template.model.get_submodule(path), attribute) is None:
                return _as_reason(path, attribute, old, new)
        return None

    def _build(self, kept: Sequence[int]) -> Inventory:
        model, stack, dtype = self._model, self._stack, self._stored_dtype
        return Inventory(build_shortened(model, stack, kept, real_buffers=False, stored_dtype=dtype))

    @cached_property
    def _has_packed_weights(self) -> bool:
        return bool(packed_modules(self._model))

    @cached_property
    def _shapes(self) -> dict[str, torch.Size]:
        return {name: tensor.shape for name, tensor in self._model.state_dict().items()}

    @cached_property
    def _dense(self) -> Inventory:
        # Rebuilt, because some families change their attributes when they run.
        return self._build(range(len(self._stack)))

    @cached_property
    def _dense_blocks(self) -> list[dict[str, nn.Module]]:
        stack = self._dense.model.get_submodule(self._stack.path)
        assert isinstance(stack, nn.ModuleList)
        return [dict(block.named_modules()) for block in stack]


def _differences(
    dense: Inventory, template: Inventory, stack: DecoderStack, kept: Sequence[int]
) -> list[tuple[str, str, Any, Any]]:
    """Return name after the removal, attribute, old and new value, of what differs in the kept blocks."""
    in_blocks = [name for name in dense.attributes if name.startswith(f"{stack.path}.")]
    renamed = [(old, new_name(old, stack.path, kept)) for old in in_blocks]
    names = [(old, new) for old, new in renamed if new is not None]
    return list(differences(dense.attributes, template.attributes, names))


def _as_reason(path: str, attribute: str, old: Any, new: Any) -> str:
    return (
        f"the remaining blocks would change, because they depend on their position: {path}.{attribute} would "
        f"be {new!r} instead of {old!r}"
    )


def _position_fields(model: PreTrainedModel) -> str:
    """Return the config fields that are known to depend on block positions, as a hint in an error message."""
    values = vars(text_config_of(model.config))
    fields = [name for name in (*RULES, *PERIODS) if values.get(name) is not None]
    return f" (it has {', '.join(fields)})" if fields else ""
