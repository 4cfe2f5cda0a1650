"""Attributes of a block that tell its place: a removal changes them, and what the block computes stays the same."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

# By class and name: they describe the stack as a whole, in the families of the matrix that keep such in their blocks.
_OF_THE_STACK = {
    ("MiniMaxLightningAttention", "num_hidden_layers"),
    ("Zamba2Attention", "layer_block_map"),
    ("Zamba2Attention", "layer_dic"),
    ("Zamba2Attention", "num_fwd_mem_blocks"),
    ("Zamba2MLP", "layer_dic"),
    ("Zamba2MLP", "num_fwd_mem_blocks"),
}
# LongCat-Flash and Beam count two parts of every block; Beam counts them from 2.
_STEPS = (1, 2)
_STARTS = range(4)


def is_renumbered(dense: nn.Module, blocks: str, kept: Sequence[int], path: str, attribute: str, new: Any) -> bool:
    """Whether an attribute in a kept block, which a cut changes, only tells the block's place.

    A whole number does if it counts the blocks, throughout the stack and after the cut; a list does if it has an entry
    for every block and keeps those of the kept ones.

    Args:
        dense: The model with all its blocks.
        blocks: Name of the list of blocks.
        kept: Indices of the blocks that stay, ascending.
        path: Name of the module that has the attribute, after the cut.
        attribute: Name of the attribute.
        new: Its value after the cut.

    Returns:
        Whether it does; without, it is a constant that the block computes with.

    Example:
        ```python
        is_renumbered(dense, "model.layers", [0, 2], "model.layers.1.self_attn", "layer_idx", 1)  # True
        is_renumbered(dense, "model.layers", [0, 2], "model.layers.1.self_attn", "window", 4096)  # False
        ```
    """
    place, _, part = path.removeprefix(f"{blocks}.").partition(".")
    stack = dense.get_submodule(blocks)
    assert isinstance(stack, nn.ModuleList)
    module = stack[kept[int(place)]].get_submodule(part)
    old = vars(module)[attribute]
    if (type(module).__name__, attribute) in _OF_THE_STACK:
        return True
    if isinstance(old, list | tuple) and len(old) == len(stack):
        return type(new) is type(old) and list(new) == [old[index] for index in kept]
    if type(old) is not int or type(new) is not int:
        return False
    values = dict(_through_the_stack(stack, part, attribute))
    return any(
        new == start + step * int(place) and all(value == start + step * index for index, value in values.items())
        for step in _STEPS
        for start in _STARTS
    )


def _through_the_stack(stack: nn.ModuleList, part: str, attribute: str) -> Iterator[tuple[int, Any]]:
    """The values of an attribute, for all blocks that have it."""
    for index, block in enumerate(stack):
        module = dict(block.named_modules()).get(part)
        if module is not None and attribute in vars(module):
            yield index, vars(module)[attribute]
