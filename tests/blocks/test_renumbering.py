from typing import Any

import pytest
from torch import nn

from optimum_sleb.blocks.renumbering import only_holds_position


def blocks_of(values: list[Any]) -> list[dict[str, nn.Module]]:
    """The modules of blocks that have these values of an attribute."""
    blocks = []
    for value in values:
        block = nn.Module()
        block.attention = nn.Module()
        if value is not None:
            block.attention.number = value
        blocks.append(dict(block.named_modules()))
    return blocks


@pytest.mark.parametrize(
    ("values", "new", "expected"),
    [
        ([0, 1, 2, 3], 1, True),
        ([0, 1, 2, 3], 2, False),  # it was not renumbered
        ([1, 2, 3, 4], 2, True),
        ([None, 1, 2, 3], 1, True),  # other blocks need not have it
        ([3, 5, 7, 9], 5, True),
        ([0, 3, 6, 9], 3, False),
        ([16, 17, 18, 19], 17, False),  # a window that grows
        ([20, 20, 48, 20], 20, False),
        ([0, 0, 2, 0], 1, False),  # it looks like an index, but only in this block
        ([0, 1, 2, 3], None, False),
        ([0.0, 1.0, 2.0, 3.0], 1, False),
        ([["a", "b", "c", "d"]] * 4, ["a", "c", "d"], True),
        ([["a", "b", "c", "d"]] * 4, ["a", "b", "c"], False),
        ([("a", "b", "c", "d")] * 4, ("a", "c", "d"), True),
        ([(48, 0)] * 4, (20, 0), False),
        ([{1: 0, 2: 1}] * 4, {1: 0}, False),
    ],
)
def test_the_third_block_without_the_second(values: list[Any], new: Any, expected: bool) -> None:
    assert only_holds_position(blocks_of(values), [0, 2, 3], 1, "attention", "number", new) is expected


def test_what_describes_the_stack_goes_by_name() -> None:
    class MiniMaxLightningAttention(nn.Module):
        num_hidden_layers: int

    blocks = blocks_of([None] * 3)
    for modules in blocks:
        modules["attention"] = MiniMaxLightningAttention()
        modules["attention"].num_hidden_layers = 3
    assert only_holds_position(blocks, [0, 2], 0, "attention", "num_hidden_layers", 2)
