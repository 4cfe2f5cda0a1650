"""Attributes of a block that only hold its position: a removal changes them, but not what the block computes."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

# (class, attribute) pairs that describe the whole stack, in the families of the test matrix that have them in blocks.
_OF_THE_STACK = {
    ("MiniMaxLightningAttention", "num_hidden_layers"),
    ("Zamba2Attention", "layer_block_map"),
    ("Zamba2Attention", "layer_dic"),
    ("Zamba2Attention", "num_fwd_mem_blocks"),
    ("Zamba2MLP", "layer_dic"),
    ("Zamba2MLP", "num_fwd_mem_blocks"),
}
# LongCat-Flash and Beam number two parts of every block; Beam starts at 2.
_STEPS = (1, 2)
_STARTS = range(4)


def only_holds_position(
    dense: nn.Module, blocks: str, kept: Sequence[int], path: str, attribute: str, new: Any
) -> bool:
    """Tell whether an attribute in a kept block only holds the block's position, so that its new value is harmless.

    An integer does if it counts the blocks, before and after the removal; a list does if it has an entry for every
    block and keeps the entries of the kept blocks. `path` is the module's name after the removal.
    """
    position, _, part = path.removeprefix(f"{blocks}.").partition(".")
    stack = dense.get_submodule(blocks)
    assert isinstance(stack, nn.ModuleList)
    module = stack[kept[int(position)]].get_submodule(part)
    old = vars(module)[attribute]
    if (type(module).__name__, attribute) in _OF_THE_STACK:
        return True
    if isinstance(old, list | tuple) and len(old) == len(stack):
        return type(new) is type(old) and list(new) == [old[index] for index in kept]
    if type(old) is not int or type(new) is not int:
        return False
    values = dict(_through_the_stack(stack, part, attribute))
    return any(
        new == start + step * int(position) and all(value == start + step * index for index, value in values.items())
        for step in _STEPS
        for start in _STARTS
    )


def _through_the_stack(stack: nn.ModuleList, part: str, attribute: str) -> Iterator[tuple[int, Any]]:
    """Yield index and value of an attribute, for all blocks that have it."""
    for index, block in enumerate(stack):
        module = dict(block.named_modules()).get(part)
        if module is not None and attribute in vars(module):
            yield index, vars(module)[attribute]
