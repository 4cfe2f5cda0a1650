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
    blocks: Sequence[dict[str, nn.Module]],  # modules of each block of the dense model, by their names in it
    kept: Sequence[int],
    place: int,  # of the block after the removal
    part: str,  # name of a module in it
    attribute: str,
    new: Any,
) -> bool:
    """Tell whether an attribute in a kept block only holds the block's position, so that its new value is harmless.

    An integer does if it counts the blocks, before and after the removal; a list does if it has an entry for every
    block and keeps the entries of the kept blocks.
    """
    module = blocks[kept[place]][part]
    old = vars(module)[attribute]
    if (type(module).__name__, attribute) in _OF_THE_STACK:
        return True
    if isinstance(old, list | tuple) and len(old) == len(blocks):
        return type(new) is type(old) and list(new) == [old[index] for index in kept]
    if type(old) is not int or type(new) is not int:
        return False
    values = dict(_through_the_stack(blocks, part, attribute))
    return any(
        new == start + step * place and all(value == start + step * index for index, value in values.items())
        for step in _STEPS
        for start in _STARTS
    )


def _through_the_stack(blocks: Sequence[dict[str, nn.Module]], part: str, attribute: str) -> Iterator[tuple[int, Any]]:
    """Yield index and value of an attribute, for all blocks that have it."""
    for index, modules in enumerate(blocks):
        if part in modules and attribute in vars(modules[part]):
            yield index, vars(modules[part])[attribute]
