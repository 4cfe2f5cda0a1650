import copy
from functools import wraps
from typing import Any

import pytest
from torch import nn
from transformers import AutoConfig, Gemma3ForCausalLM

from optimum_sleb import SLEBPruner, VerificationError
from optimum_sleb.blocks import surgery
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.blocks.surgery import build_shortened, cut_in_place, differing_attributes, remove_blocks

from ..families import FAMILIES, NUM_BLOCKS, tiny_model


@pytest.mark.parametrize("family", FAMILIES)
def test_indices_are_renumbered(family: str) -> None:
    model = tiny_model(family)
    stack = find_decoder_stack(model)
    kept = [0, 2, 5]
    template = build_shortened(model, find_decoder_stack(model), kept)
    cut_in_place(model, stack, kept, template)
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


def test_a_cut_that_went_wrong_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    pruner = SLEBPruner(tiny_model("gemma3"))
    monkeypatch.setattr("optimum_sleb.blocks.surgery.cut_in_place", lambda model, stack, kept, template: None)
    with pytest.raises(VerificationError, match="does not compute what was measured with its blocks skipped"):
        pruner.remove([2])


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (surgery, "build_shortened"),
        (nn.Module, "load_state_dict"),
        (surgery, "copy_device_hooks"),
        (Gemma3ForCausalLM, "forward"),
    ],
)
def test_a_model_whose_cut_cannot_be_tried_stays_whole(owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gemma3").train()
    model.hf_device_map = {f"model.layers.{index}": "cpu" for index in range(NUM_BLOCKS)}
    stack = find_decoder_stack(model)
    state, config = copy.deepcopy(model.state_dict()), copy.deepcopy(model.config.to_dict())
    devices, attributes = dict(model.hf_device_map), [set(vars(module)) for module in model.modules()]
    real = getattr(owner, name)

    @wraps(real)
    def full(first: nn.Module, *rest: object, **options: object) -> object:
        if name == "forward" and first is model:
            return real(first, *rest, **options)
        raise MemoryError

    monkeypatch.setattr(owner, name, full)
    with pytest.raises(MemoryError):
        remove_blocks(model, stack, {1, 2})
    after = model.state_dict()
    assert after.keys() == state.keys()
    assert all(after[name].equal(state[name]) for name in state)
    assert (model.config.to_dict(), model.hf_device_map) == (config, devices)
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert all(module.training for module in model.modules())
    assert len(stack) == NUM_BLOCKS
    monkeypatch.undo()
    remove_blocks(model, stack, {1, 2})
