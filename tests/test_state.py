"""A model comes out of a run as it went in, but for its blocks: also where the run ends in an error."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, PreTrainedModel

from optimum_sleb import SLEBConfig, SLEBPruner

from .families import FAMILIES, NUM_BLOCKS, random_ids, tiny_model

TWO_BLOCKS = SLEBConfig(num_blocks_to_remove=2, window_length=20)
IDS = random_ids(2, 20)
MOMENTS = 12


def blocks_of(model: PreTrainedModel) -> torch.nn.ModuleList:
    return next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))


def odd_model(family: str = "llama", dtype: torch.dtype = torch.float32, **overrides: Any) -> PreTrainedModel:
    """A model in the middle of somebody's training."""
    model = tiny_model(family, dtype=dtype, **overrides)
    model.train()
    model.gradient_checkpointing_enable()
    blocks_of(model)[0].eval()
    for parameter in blocks_of(model)[3].parameters():
        parameter.requires_grad_(False)
    return model


def state_of(model: PreTrainedModel) -> dict[int, tuple]:
    """How each module is being run, and which tensors it has; by identity, for names change when blocks go."""
    return {
        id(module): (
            type(module),
            module.training,
            getattr(module, "gradient_checkpointing", None),
            list(module._forward_hooks),
            [
                (id(one), one.dtype, one.data_ptr(), one.requires_grad)
                for one in module._parameters.values()
                if one is not None
            ],
        )
        for module in model.modules()
    }


def about(model: PreTrainedModel) -> tuple:
    return model.config.use_cache, model.generation_config.to_dict(), model.is_gradient_checkpointing, model.dtype


@pytest.mark.long
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "qwen3"])
def test_only_the_blocks_are_other_afterwards(family: str, tmp_path: Path) -> None:
    model = odd_model(family)
    blocks, before, said = list(blocks_of(model)), state_of(model), about(model)
    pruner = SLEBPruner(model)
    pruner.prune(TWO_BLOCKS, calibration=IDS)
    pruner.save_pretrained(tmp_path / "out")
    assert list(blocks_of(model)) == [blocks[number] for number in pruner.report.blocks_after]
    assert state_of(model).items() <= before.items()
    assert about(model) == said
    # Training goes on, with gradient checkpointing.
    model(input_ids=IDS, labels=IDS).loss.backward()
    trained = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert trained == {name for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.long
@pytest.mark.parametrize("use_cache", [True, False])
def test_use_cache_stays(use_cache: bool, tmp_path: Path) -> None:
    model = tiny_model(use_cache=use_cache)
    pruner = SLEBPruner(model)
    pruner.prune(TWO_BLOCKS, calibration=IDS)
    pruner.save_pretrained(tmp_path / "out")
    assert model.config.use_cache == use_cache
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.use_cache == use_cache


@pytest.mark.long
def test_dropout_takes_no_part() -> None:
    dropout = {"attn_pdrop": 0.5, "embd_pdrop": 0.5, "resid_pdrop": 0.5}
    reports = []
    for training in (True, False):
        pruner = SLEBPruner(tiny_model("gpt2", **dropout).train(training))
        pruner.prune(TWO_BLOCKS, calibration=IDS)
        reports.append([step.candidate_losses for step in pruner.report.steps])
    assert reports[0] == reports[1]
    assert pruner.model.transformer.h[0].mlp.dropout.p == 0.5


@pytest.mark.long
@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "phi3"])
def test_tied_weights_stay_tied(family: str, tmp_path: Path) -> None:
    model = tiny_model(family, tie_word_embeddings=True)
    pruner = SLEBPruner(model)
    pruner.remove([2, 4])
    pruner.save_pretrained(tmp_path / "out")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    for one in (model, again):
        assert one.get_output_embeddings().weight is one.get_input_embeddings().weight
    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as file:
        assert not any("lm_head" in name or "embed_out" in name for name in file.keys())  # noqa: SIM118


@pytest.mark.long
def test_hooks_on_the_blocks_stay() -> None:
    model, called = tiny_model(), []
    for number, block in enumerate(model.model.layers):
        block.register_forward_hook(lambda *_, number=number: called.append(number))
    pruner = SLEBPruner(model)
    pruner.prune(TWO_BLOCKS, calibration=IDS)
    called.clear()
    with torch.no_grad():
        model(IDS)
    assert tuple(called) == pruner.report.blocks_after


class InjectedError(BaseException):
    """Nobody may catch it, as nobody may catch Ctrl-C."""


def interrupted_at(number: int, model: PreTrainedModel, run: Callable[[], object]) -> int:
    """Run, and raise where the model or one of its blocks starts to compute for this many-th time."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            raise InjectedError

    hooks = [module.register_forward_pre_hook(count) for module in (model, *blocks_of(model))]
    try:
        run()
    except InjectedError:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return calls


@pytest.mark.long
@pytest.mark.reliability(
    "an error at random moments of a search: exact, racing and reference, in float32 and bfloat16",
    lost="nothing: modes, flags, hooks, dtypes and weights are as they were",
)
@pytest.mark.tries(MOMENTS)
@pytest.mark.parametrize("search", ["exact", "racing", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_error_in_the_middle_leaves_the_model_as_it_was(search: str, dtype: torch.dtype) -> None:
    config = SLEBConfig(num_blocks_to_remove=2, window_length=20, search=search)
    pruner = SLEBPruner(odd_model(dtype=dtype))
    last = interrupted_at(0, pruner.model, lambda: pruner.prune(config, calibration=IDS))
    expected = pruner.report.steps

    model = odd_model(dtype=dtype)
    blocks, before, said, told = list(blocks_of(model)), state_of(model), about(model), model.config.to_dict()
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    pruner = SLEBPruner(model)
    # The very last calls are those of the finished model, which is run twice: checked, and looked over.
    last -= 2 * (1 + NUM_BLOCKS - config.num_blocks_to_remove)
    for number in sorted(random.Random(0).sample(range(1, last + 1), MOMENTS)):
        calls = interrupted_at(number, model, lambda: pruner.prune(config, calibration=IDS))
        assert calls == number
        assert list(blocks_of(model)) == blocks
        assert state_of(model) == before
        assert (about(model), model.config.to_dict()) == (said, told)
        assert all(weight.equal(weights[name]) for name, weight in model.state_dict().items())
        assert torch.is_grad_enabled()
    # And the search can be run again.
    pruner.prune(config, calibration=IDS)
    assert [(step.block, step.candidate_losses) for step in pruner.report.steps] == [
        (step.block, step.candidate_losses) for step in expected
    ]
