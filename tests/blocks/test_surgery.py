import copy

import pytest
from transformers import AutoConfig, BartConfig, Gemma3Config, Qwen3Config

from optimum_sleb import UnsupportedModelError
from optimum_sleb.blocks.gates import build_shortened
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.blocks.surgery import cut_out, differing_attributes, shorten_config

from ..families import FAMILIES, tiny_model


def test_lists_with_an_entry_per_layer_are_sliced() -> None:
    types = ["full_attention", "sliding_attention", "full_attention", "full_attention"]
    config = Qwen3Config(num_hidden_layers=4, layer_types=types, eos_token_id=[1, 2, 3, 4])
    shorten_config(config, [1, 3])
    assert config.num_hidden_layers == 2
    assert config.layer_types == ["sliding_attention", "full_attention"]
    assert config.eos_token_id == [1, 2, 3, 4]  # as many as layers, but not about them


def test_the_text_config_of_a_composite_model_is_edited() -> None:
    config = Gemma3Config(text_config={"num_hidden_layers": 4})
    shorten_config(config, [0, 2, 3])
    assert config.text_config.num_hidden_layers == len(config.text_config.layer_types) == 3


def test_encoder_decoder_configs_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="BartConfig describes an encoder and a decoder"):
        shorten_config(BartConfig(), [0, 1])


@pytest.mark.parametrize("family", FAMILIES)
def test_indices_are_renumbered(family: str) -> None:
    model = tiny_model(family)
    stack = find_decoder_stack(model)
    kept = [0, 2, 5]
    template = build_shortened(model, kept)
    cut_out(model, stack, kept, template)
    assert len(stack) == 3
    assert not list(differing_attributes(stack.blocks, template.get_submodule(stack.path)))
    indices = [
        value
        for index, block in enumerate(stack.blocks)
        for module in block.modules()
        for name, value in vars(module).items()
        if name == "layer_idx" and value != index
    ]
    assert not indices


def test_the_dense_config_is_untouched_until_the_cut() -> None:
    model = tiny_model("gemma3")
    before = copy.deepcopy(model.config.to_dict())
    build_shortened(model, [0, 1, 4])
    assert model.config.to_dict() == before
    assert AutoConfig.for_model(**before).layer_types == model.config.layer_types
