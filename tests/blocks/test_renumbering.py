from typing import Any

import pytest
from torch import nn

from optimum_sleb.blocks.renumbering import only_holds_position


def stack_of(values: list[Any]) -> nn.Module:
    """A model whose blocks have these values of an attribute."""
    model = nn.Module()
    model.blocks = nn.ModuleList()
    for value in values:
        block = nn.Module()
        block.attention = nn.Module()
        if value is not None:
            block.attention.number = value
        model.blocks.append(block)
    return model


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
    assert only_holds_position(stack_of(values), "blocks", [0, 2, 3], "blocks.1.attention", "number", new) is expected


def test_what_describes_the_stack_goes_by_name() -> None:
    class MiniMaxLightningAttention(nn.Module):
        num_hidden_layers: int

    model = stack_of([None] * 3)
    for block in model.blocks:
        block.attention = MiniMaxLightningAttention()
        block.attention.num_hidden_layers = 3
    assert only_holds_position(model, "blocks", [0, 2], "blocks.0.attention", "num_hidden_layers", 2)
