import pytest
import torch

from optimum_sleb.blocks.forward import logits_of
from optimum_sleb.blocks.runner import open_runner
from optimum_sleb.blocks.stack import find_decoder_stack

from ..families import FAMILIES, NUM_BLOCKS, random_ids, tiny_model


@pytest.mark.parametrize("family", FAMILIES)
def test_entrance_blocks_and_logits_make_the_whole_model(family: str, device: str) -> None:
    model = tiny_model(family).to(device)
    stack = find_decoder_stack(model)
    ids = random_ids(2, 20).to(device)
    with torch.no_grad():
        expected = logits_of(model, ids)
    with open_runner(model, stack) as runner:
        hidden = runner.run(runner.start(ids), range(NUM_BLOCKS)).hidden
        assert runner.block_passes == NUM_BLOCKS
        torch.testing.assert_close(runner.logits(hidden, ids), expected)
        # The tail works position by position.
        torch.testing.assert_close(runner.logits(hidden[:, 7:9], ids[:, 7:9]), expected[:, 7:9])


def test_leaves_no_trace() -> None:
    model = tiny_model().train()
    stack = find_decoder_stack(model)
    blocks = list(stack.blocks)
    with open_runner(model, stack) as runner:
        assert not model.training
        runner.start(random_ids(1, 4))
    assert list(stack.blocks) == blocks
    assert model.training
