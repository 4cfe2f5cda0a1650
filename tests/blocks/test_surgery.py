import copy

import pytest
from transformers import AutoConfig

from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.blocks.surgery import build_shortened, cut_out, differing_attributes

from ..families import FAMILIES, tiny_model


@pytest.mark.parametrize("family", FAMILIES)
def test_indices_are_renumbered(family: str) -> None:
    model = tiny_model(family)
    stack = find_decoder_stack(model)
    kept = [0, 2, 5]
    template = build_shortened(model, find_decoder_stack(model), kept)
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
    build_shortened(model, find_decoder_stack(model), [0, 1, 4])
    assert model.config.to_dict() == before
    assert AutoConfig.for_model(**before).layer_types == model.config.layer_types
