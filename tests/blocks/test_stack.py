import pytest
import torch
from torch import nn
from transformers import PreTrainedModel, XLMConfig, XLMWithLMHeadModel

from optimum_sleb import UnsupportedModelError
from optimum_sleb.blocks.forward import logits_of
from optimum_sleb.blocks.stack import find_decoder_stack, probe_ids

from ..families import FAMILIES, NUM_BLOCKS, random_ids, tiny_model

PATHS = {"opt": "model.decoder.layers", "gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers"}
PATHS |= {"falcon": "transformer.h", "bloom": "transformer.h"}


@pytest.mark.parametrize("family", FAMILIES)
def test_finds_the_blocks(family: str) -> None:
    stack = find_decoder_stack(tiny_model(family))
    assert stack.path == PATHS.get(family, "model.layers")
    assert len(stack) == NUM_BLOCKS
    assert sorted(stack.forms) == list(range(NUM_BLOCKS))


def test_skips_blocks_and_puts_them_back(llama: PreTrainedModel) -> None:
    ids = random_ids(1, 8)
    stack = find_decoder_stack(llama)
    blocks = list(stack.blocks)
    with torch.no_grad():
        dense = logits_of(llama, ids)
        with stack.skipping({1, 4}):
            skipped = logits_of(llama, ids)
            # No tensor appears or goes while a stand-in is there, apart from the block's own.
            assert not any(name.startswith("model.layers.1.") for name in llama.state_dict())
        assert list(stack.blocks) == blocks
        del llama.model.layers[4], llama.model.layers[1]
        torch.testing.assert_close(skipped, logits_of(llama, ids))
    assert not torch.allclose(dense, skipped)


def test_blocks_come_back_after_an_error(llama: PreTrainedModel) -> None:
    stack = find_decoder_stack(llama)
    blocks = list(stack.blocks)
    with pytest.raises(KeyError), stack.skipping({0, 2}):
        raise KeyError
    assert list(stack.blocks) == blocks


def test_no_list_of_blocks(llama: PreTrainedModel) -> None:
    llama.config.num_hidden_layers = 5
    with pytest.raises(UnsupportedModelError, match="LlamaForCausalLM has no list of 5 decoder blocks"):
        find_decoder_stack(llama)


def test_layers_spread_over_several_lists() -> None:
    model = XLMWithLMHeadModel(XLMConfig(vocab_size=64, emb_dim=16, n_layers=3, n_heads=2, causal=True))
    with pytest.raises(UnsupportedModelError, match=r"spreads its 3 layers over 2 lists .*transformer.attentions"):
        find_decoder_stack(model)


def test_a_stack_that_plain_text_does_not_run(llama: PreTrainedModel) -> None:
    blocks = llama.model.layers
    del llama.model.layers
    llama.model.layers = []
    llama.vision = nn.ModuleList(blocks)
    with pytest.raises(UnsupportedModelError, match=r"does not run the blocks of vision on plain text"):
        find_decoder_stack(llama)


def test_probe_is_always_the_same(llama: PreTrainedModel) -> None:
    assert probe_ids(llama).equal(probe_ids(llama))
    assert probe_ids(llama).shape == (1, 16)
