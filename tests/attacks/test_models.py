"""Models that are not what they say: refused in one sentence before the search, or pruned and saved as they are."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from optimum_sleb import SLEBConfig, SLEBError, SLEBPruner

from ..families import random_ids, tiny_model

IDS = random_ids(2, 20)
CONFIG = SLEBConfig(num_blocks_to_remove=1, window_length=20)
FAMILIES = ("llama", "gpt2", "qwen3", "gemma3")

# Ways to prune and save; each must refuse the model, or give a folder that computes the same as the model in memory.
DOORS: dict[str, Callable[[SLEBPruner], object]] = {
    "prune": lambda pruner: pruner.prune(CONFIG, calibration=IDS),
    "remove": lambda pruner: pruner.remove([2]),
}


def set_generation(**values: Any) -> Callable[[PreTrainedModel], object]:
    return lambda model: [setattr(model.generation_config, name, value) for name, value in values.items()]


def set_config(**values: Any) -> Callable[[PreTrainedModel], object]:
    return lambda model: [setattr(model.config, name, value) for name, value in values.items()]


def cast(name: str, dtype: torch.dtype) -> Callable[[PreTrainedModel], object]:
    """Cast the weights whose name holds a word."""

    def damage(model: PreTrainedModel) -> None:
        for path, parameter in model.named_parameters():
            if name in path:
                parameter.data = parameter.data.to(dtype)

    return damage


def in_inference_mode(part: str) -> Callable[[PreTrainedModel], object]:
    def damage(model: PreTrainedModel) -> None:
        module = model.get_submodule(part)
        with torch.inference_mode():
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, torch.nn.Parameter(parameter.clone(), requires_grad=False))

    return damage


# What is damaged: how, and words of the sentence that refuses it.
GENERATION = {
    "a temperature without sampling": (set_generation(temperature=0.5), "generation_config"),
    "a cache that there is not": (set_generation(cache_implementation="none of these"), "generation_config"),
    "a share over one": (set_generation(do_sample=False, top_p=0.9), "generation_config"),
    "more beams than one, none returned": (set_generation(num_return_sequences=3), "generation_config"),
    "no new tokens": (set_generation(max_new_tokens=-5), "generation_config"),
    "early stopping without beams": (set_generation(early_stopping="soon"), "generation_config"),
    "something that is no JSON": (set_generation(stop_strings=torch.nn.Linear(1, 1)), "generation_config"),
}
CONFIGS = {
    "a tensor": (set_config(note=torch.nn.Linear(1, 1)), "config"),
    "a function": (set_config(note=print), "config"),
    "a set of objects": (set_config(note={"a": object()}), "config"),
}
PRECISIONS = {
    "float32 norms": (cast("norm", torch.float32), "one precision"),
    "a float32 head": (cast("lm_head", torch.float32), "one precision"),
    "float16 projections": (cast("o_proj", torch.float16), "one precision"),
    "a float64 block": (cast("layers.2.", torch.float64), "one precision"),
    "a float32 embedding": (cast("embed_tokens", torch.float32), "one precision"),
}
INFERENCE = {
    "the embeddings": (in_inference_mode("model.embed_tokens"), r"inference_mode.*outside"),
    "a projection": (in_inference_mode("model.layers.3.self_attn.q_proj"), r"inference_mode.*outside"),
    "the last norm": (in_inference_mode("model.norm"), r"inference_mode.*outside"),
    "the head": (in_inference_mode("lm_head"), r"inference_mode.*outside"),
}
REFUSED = [
    *((family, damage, dtype) for family in FAMILIES for damage in GENERATION.items() for dtype in [torch.float32]),
    *((family, damage, torch.float32) for family in FAMILIES[:2] for damage in CONFIGS.items()),
    *(("llama", damage, torch.bfloat16) for damage in [*PRECISIONS.items(), *INFERENCE.items()]),
]
never_searched = pytest.mark.reliability(
    "a model that could not be saved: an invalid generation config, mixed precision, inference mode",
    lost="nothing; refused before the search, with the remedy",
)


def cases() -> list[Any]:
    return [
        pytest.param(family, damage, words, dtype, id=f"{family}-{name}")
        for family, (name, (damage, words)), dtype in REFUSED
    ]


@never_searched
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("family", "damage", "words", "dtype"), cases())
def test_refused_before_the_search(
    family: str,
    damage: Callable[[PreTrainedModel], object],
    words: str,
    dtype: torch.dtype,
    door: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("optimum_sleb.pruner.open_search", lambda *_, **__: pytest.fail("the search began"))
    monkeypatch.setattr("optimum_sleb.pruner.remove_blocks", lambda *_, **__: pytest.fail("the removal began"))
    model = tiny_model(family, dtype=dtype)
    damage(model)
    with pytest.raises(SLEBError, match=words) as refusal:
        DOORS[door](SLEBPruner(model))
    assert len(str(refusal.value)) < 600
    assert "\n" not in str(refusal.value)


def untied(family: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A model whose config says that the head is tied, which it is not."""
    model = tiny_model(family, dtype=dtype, tie_word_embeddings=False)
    head = model.get_output_embeddings()
    if head.weight is model.get_input_embeddings().weight:
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
    with torch.no_grad():
        head.weight.mul_(1.5)
    model.config.tie_word_embeddings = True
    return model


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "mistral"])
def test_a_head_of_its_own_is_saved_as_what_it_is(family: str, dtype: torch.dtype, door: str, tmp_path: Path) -> None:
    pruner = SLEBPruner(untied(family, dtype))
    DOORS[door](pruner)
    with pytest.warns(UserWarning, match="tie_word_embeddings.*the config now says false"):
        pruner.save_pretrained(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert again.get_output_embeddings().weight.equal(pruner.model.get_output_embeddings().weight)
    assert not again.get_output_embeddings().weight.equal(again.get_input_embeddings().weight)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_an_honest_config_stays(family: str, tied: bool, tmp_path: Path) -> None:
    pruner = SLEBPruner(tiny_model(family, tie_word_embeddings=tied))
    pruner.remove([2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruner.save_pretrained(tmp_path / "out")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.tie_word_embeddings is tied


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("default", [torch.float16, torch.bfloat16, torch.float64])
def test_another_default_dtype(default: torch.dtype, door: str) -> None:
    expected = SLEBPruner(tiny_model())
    DOORS[door](expected)
    model = tiny_model()
    torch.set_default_dtype(default)
    try:
        pruner = SLEBPruner(model)
        DOORS[door](pruner)
    finally:
        torch.set_default_dtype(torch.float32)
    assert pruner.blocks == expected.blocks


@pytest.mark.parametrize("door", DOORS)
def test_in_inference_mode(door: str, tmp_path: Path) -> None:
    model = tiny_model()
    with torch.inference_mode():
        pruner = SLEBPruner(model)
        DOORS[door](pruner)
    pruner.save_pretrained(tmp_path / "out")
    assert not any(parameter.is_inference() for parameter in model.parameters())
