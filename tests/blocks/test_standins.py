import pytest
import torch
from torch import nn

from optimum_sleb import UnsupportedModelError
from optimum_sleb.blocks.standins import OutputForm, StandIn, hidden_state_of


@pytest.mark.parametrize("make", [lambda h: h, lambda h: (h, None), lambda h: [h], lambda h: (h, None, None)])
def test_answers_in_the_form_of_the_block(make) -> None:
    hidden = torch.randn(1, 2, 3)
    expected = make(hidden)
    answer = StandIn(nn.Linear(3, 3), OutputForm.of(expected))(hidden, "mask", cache=None)
    assert type(answer) is type(expected)
    assert hidden_state_of(answer) is hidden
    if not isinstance(expected, torch.Tensor):
        assert list(answer[1:]) == list(expected[1:])


def test_takes_the_hidden_state_by_name_too() -> None:
    hidden = torch.randn(1, 2, 3)
    seen = {}

    def respond(state, args, kwargs):
        seen.update(args=args, kwargs=kwargs)
        return state + 1

    answer = StandIn(nn.Linear(3, 3), OutputForm(None, 1), respond)(hidden_states=hidden, mask=2)
    assert answer.equal(hidden + 1)
    assert seen == {"args": (), "kwargs": {"mask": 2}}
    with pytest.raises(UnsupportedModelError, match=r"A decoder block is called with \['states'\]"):
        StandIn(nn.Linear(3, 3), OutputForm(None, 1))(states=hidden)


def test_answers_for_the_blocks_attributes_but_owns_no_weights() -> None:
    block = nn.Linear(3, 3)
    block.attention_type = "sliding_attention"
    stand_in = StandIn(block, OutputForm(None, 1))
    assert stand_in.attention_type == "sliding_attention"
    assert stand_in.weight is block.weight
    assert not list(stand_in.parameters())
    with pytest.raises(AttributeError):
        getattr(stand_in, "nothing")


def test_strange_outputs_are_refused() -> None:
    for output in ({"hidden": torch.zeros(1)}, (), (None, torch.zeros(1))):
        with pytest.raises(UnsupportedModelError, match="A decoder block returns a"):
            OutputForm.of(output)
