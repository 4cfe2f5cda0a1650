"""The checks of a removal without what they share: each set of blocks is rebuilt and compared from nothing."""

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from optimum_sleb.blocks.folding import find_fold
from optimum_sleb.blocks.renumbering import _OF_THE_STACK
from optimum_sleb.blocks.rules import PERIODS, RULES, num_image_blocks
from optimum_sleb.blocks.shortening import text_config_of
from optimum_sleb.blocks.stack import DecoderStack
from optimum_sleb.blocks.surgery import _is_plain, build_shortened, kept_state, new_name
from optimum_sleb.errors import UnsupportedModelError


def slow_reason(model: PreTrainedModel, stack: DecoderStack, removed: Collection[int]) -> str | None:
    """As `reason_not_removable` without a run."""
    not_run = sorted(set(removed) - set(stack.forms))
    if not_run:
        return f"plain text does not run block {not_run[0]}, so its removal cannot be measured"
    if any(index < num_image_blocks(model.config) for index in removed):
        return f"image features enter behind the first {num_image_blocks(model.config)} blocks, by number"
    kept = [index for index in range(len(stack)) if index not in removed]
    try:
        template = build_shortened(model, stack, kept, real_buffers=False)
    except UnsupportedModelError as error:
        return str(error)
    shapes = {name: tensor.shape for name, tensor in kept_state(model, stack, kept, template).items()}
    wanted = {name: tensor.shape for name, tensor in template.state_dict().items()}
    differing = [name for name in sorted(shapes.keys() | wanted.keys()) if shapes.get(name) != wanted.get(name)]
    if differing:
        values = vars(text_config_of(model.config))
        fields = [name for name in (*RULES, *PERIODS) if values.get(name) is not None]
        return (
            f"the remaining blocks would need other weights at their new places ({len(differing)} differ, the first "
            f"is {differing[0]}), because this architecture builds its blocks by position"
            + (f" (it has {', '.join(fields)})" if fields else "")
        )
    dense = build_shortened(model, stack, range(len(stack)), real_buffers=False)
    names = [(name, new_name(name, stack.path, kept)) for name, _ in dense.named_modules()]
    for path, attribute, old, new in _differing(dense, template, [(one, other) for one, other in names if other]):
        if not path.startswith(f"{stack.path}.") or _holds_position(dense, stack.path, kept, path, attribute, new):
            continue
        if find_fold(template.get_submodule(path), attribute) is None:
            return (
                f"the remaining blocks would change, because they depend on their position: {path}.{attribute} "
                f"would be {new!r} instead of {old!r}"
            )
    return None


def _differing(
    model: nn.Module, template: nn.Module, names: Sequence[tuple[str, str]]
) -> Iterator[tuple[str, str, Any, Any]]:
    for old, new in names:
        there = dict(template.named_modules())
        values = vars(there[new]) if new in there else {}
        for attribute, value in vars(model.get_submodule(old)).items():
            if attribute.startswith("_") or attribute in (
                "training",
                "gradient_checkpointing",
                "is_gradient_checkpointing",
            ):
                continue
            if attribute not in values or not _is_plain(value) or not _is_plain(values[attribute]):
                continue
            if type(value) is float and type(values[attribute]) is float:
                if not math.isclose(value, values[attribute], rel_tol=1e-9):
                    yield new, attribute, value, values[attribute]
            elif value != values[attribute]:
                yield new, attribute, value, values[attribute]


def _holds_position(dense: nn.Module, path: str, kept: Sequence[int], name: str, attribute: str, new: Any) -> bool:
    position, _, part = name.removeprefix(f"{path}.").partition(".")
    blocks = list(dense.get_submodule(path))
    module = blocks[kept[int(position)]].get_submodule(part)
    old = vars(module)[attribute]
    if (type(module).__name__, attribute) in _OF_THE_STACK:
        return True
    if isinstance(old, list | tuple) and len(old) == len(blocks):
        return type(new) is type(old) and list(new) == [old[index] for index in kept]
    if type(old) is not int or type(new) is not int:
        return False
    there = {index: dict(block.named_modules()).get(part) for index, block in enumerate(blocks)}
    values = {index: vars(one)[attribute] for index, one in there.items() if one and attribute in vars(one)}
    return any(
        new == start + step * int(position) and all(value == start + step * index for index, value in values.items())
        for step in (1, 2)
        for start in range(4)
    )
