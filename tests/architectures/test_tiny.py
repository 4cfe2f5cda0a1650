import pytest
import torch
from transformers import LlavaForConditionalGeneration

from .sizes import HARD, NUM_BLOCKS
from .tiny import tiny_config, tiny_model


def test_per_layer_mechanisms_are_on() -> None:
    config = tiny_config("qwen2_moe")
    assert config.num_hidden_layers == NUM_BLOCKS
    assert len(set(config.layer_types)) == 2
    assert config.mlp_only_layers == HARD["qwen2_moe"]["mlp_only_layers"]


def test_every_block_matters() -> None:
    # A model whose blocks hardly change anything would let a wrong removal pass.
    model = tiny_model("llama")
    ids = torch.arange(3, 19)[None]
    with torch.no_grad():
        before = model(ids).logits
        for block in range(NUM_BLOCKS):
            layer = model.model.layers[block]
            model.model.layers[block] = model.model.layers[(block + 1) % NUM_BLOCKS]
            assert (model(ids).logits - before).abs().max() > 0.05 * before.abs().max()
            model.model.layers[block] = layer


def test_seed() -> None:
    assert tiny_model("gpt2").lm_head.weight.equal(tiny_model("gpt2").lm_head.weight)
    assert not tiny_model("gpt2").lm_head.weight.equal(tiny_model("gpt2", seed=1).lm_head.weight)


def test_with_a_vision_tower() -> None:
    assert isinstance(tiny_model("llava", with_images=True), LlavaForConditionalGeneration)


def test_what_does_not_get_small() -> None:
    with pytest.raises(ValueError, match=r"its smallest model has \d+ million parameters"):
        tiny_model("inkling_mm_model", with_images=True)
