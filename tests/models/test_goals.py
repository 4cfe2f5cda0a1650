"""Targets: the first depth that meets them, against models that are really pruned to each depth, saved and run."""

import copy
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from optimum_sleb import ConfigError, SLEBConfig, SLEBPruner, UnsupportedModelError
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.config import candidates_of
from optimum_sleb.models.goals import check_size_goal, size_goal

from ..architectures import tiny
from ..families import NUM_BLOCKS, random_ids, tiny_model

IDS = random_ids(3, 16)
CONTEXT, SEQUENCES = 24, 3

MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: tiny_model("llama"),
    "gpt2": lambda: tiny_model("gpt2"),  # counts its positions, and looks at the numbers of its tokens
    "sliding windows": lambda: tiny_model("gemma3"),
    "mixture of experts": lambda: tiny.tiny_model("qwen3_moe"),
    "hybrid": lambda: tiny.tiny_model("lfm2"),  # blocks of convolution keep a state, and have another size
    "latent": lambda: tiny.tiny_model("deepseek_v3"),  # dense blocks first, then such with experts
}


def really_cached(model: PreTrainedModel) -> int:
    """Generate, and add up all that the cache holds by then."""
    ids = torch.randint(3, 60, (SEQUENCES, CONTEXT - 1))
    generated = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=2,
        min_new_tokens=2,
        do_sample=False,
        return_dict_in_generate=True,
        pad_token_id=0,
    )

    def tensors(value: Any) -> Iterator[Tensor]:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict | list | tuple):
            for item in value.values() if isinstance(value, dict) else value:
                yield from tensors(item)

    held = [tensor for layer in generated.past_key_values.layers for tensor in tensors(vars(layer))]
    return sum(tensor.numel() * tensor.element_size() for tensor in held if tensor.dim() > 1)


def measured_at_each_depth(model: PreTrainedModel, order: list[int], folder: Path) -> list[dict[str, int]]:
    measured = []
    for depth in range(len(order) + 1):
        pruned = copy.deepcopy(model)
        if depth:
            SLEBPruner(pruned).remove(order[:depth])
        pruned.save_pretrained(folder / str(depth))
        saved = AutoModelForCausalLM.from_pretrained(folder / str(depth), dtype="auto").eval()
        weights = sum(parameter.numel() * parameter.element_size() for parameter in saved.parameters())
        measured.append({"max_parameters": saved.num_parameters(), "max_memory": weights + really_cached(saved)})
    return measured


@pytest.mark.long
@pytest.mark.parametrize("name", MODELS)
def test_the_first_depth_that_meets_it(name: str, tmp_path: Path, one_thread: None) -> None:
    warnings.simplefilter("ignore")
    model = MODELS[name]()
    most = 4
    searched = SLEBPruner(copy.deepcopy(model))
    searched.prune(SLEBConfig(num_blocks_to_remove=most), calibration=IDS)
    order = list(searched.report.removed_blocks)
    measured = measured_at_each_depth(model, order, tmp_path)
    for field, more in {
        "max_parameters": {},
        "max_memory": {"context_length": CONTEXT, "num_sequences": SEQUENCES},
    }.items():
        values = [of_depth[field] for of_depth in measured]
        for asked in (values[2], values[2] - 1):
            depth = next(depth for depth, value in enumerate(values) if value <= asked)
            pruner = SLEBPruner(copy.deepcopy(model))
            pruner.prune(SLEBConfig(**{field: asked}, **more), calibration=IDS)
            target = pruner.report.target
            assert list(pruner.report.removed_blocks) == order[:depth]
            assert (target.asked, target.before, target.reached) == (asked, values[0], values[depth])
            assert pruner.report.parameters_after == measured[depth]["max_parameters"]


@pytest.mark.long
def test_with_compensation_the_depth_is_that_of_the_compensated_search(one_thread: None) -> None:
    warnings.simplefilter("ignore")
    by_number, by_target = SLEBPruner(tiny_model()), SLEBPruner(tiny_model())
    data = random_ids(12, 16)
    by_number.prune(SLEBConfig(num_blocks_to_remove=2, compensate="during"), calibration=data)
    asked = by_number.report.parameters_after
    by_target.prune(SLEBConfig(max_parameters=asked, compensate="during"), calibration=data)
    assert by_target.report.removed_blocks == by_number.report.removed_blocks
    assert by_target.report.target.reached == asked
    after = SLEBPruner(tiny_model())
    after.prune(SLEBConfig(max_parameters=asked, compensate="after"), calibration=data)
    assert len(after.report.steps) == 2
    assert after.report.compensation is not None


def goal_of(model: PreTrainedModel, **values: Any):
    config = SLEBConfig(**values)
    goal = size_goal(model, find_decoder_stack(model), config)
    goal.check(candidates_of(config, range(NUM_BLOCKS)), NUM_BLOCKS)
    return goal


def test_what_cannot_be_met_is_refused_with_the_nearest() -> None:
    model = tiny_model()
    smallest = tiny_model(num_hidden_layers=2).num_parameters()
    message = (
        f"max_parameters=10 cannot be met: without all 4 of the 6 blocks that may go it is {smallest:,} .the para"
    )
    with pytest.raises(ConfigError, match=message):
        goal_of(model, max_parameters=10)
    with pytest.raises(ConfigError, match="without all 1 of the 6 blocks"):
        goal_of(model, max_parameters=10, candidate_blocks="3")
    with pytest.raises(ConfigError, match="The model meets max_parameters=6,000,000,000 already, with 50,592"):
        goal_of(model, max_parameters="6B")
    with pytest.raises(ConfigError, match="max_memory=10 bytes cannot be met: .* 1 x 2,048 tokens in float32"):
        goal_of(model, max_memory=10)
    with pytest.raises(ConfigError, match="context_length=129 is more than the 128 positions of GPT2LMHeadModel"):
        goal_of(tiny_model("gpt2"), max_memory=10, context_length=129)


def test_a_context_that_is_not_given_is_2048_or_the_positions() -> None:
    def words(family: str) -> str:
        model = tiny_model(family)
        return size_goal(model, find_decoder_stack(model), SLEBConfig(max_memory=9)).counted

    assert words("gpt2") == "the weights and the cache of 1 x 128 tokens in float32"
    assert words("llama") == "the weights and the cache of 1 x 2,048 tokens in float32"


def test_the_depth_is_known_where_blocks_are_alike() -> None:
    model = tiny_model()
    goal = size_goal(model, find_decoder_stack(model), SLEBConfig(max_parameters=40_000))
    assert goal.depth(range(1, 5)) == next(depth for depth in range(5) if goal.is_met(range(1, 1 + depth)))
    uneven = tiny.tiny_model("lfm2")
    sizes = size_goal(uneven, find_decoder_stack(uneven), SLEBConfig(max_parameters=1))
    few, many = sorted(sizes.value_of(()) - sizes.value_of((block,)) for block in range(8))[::7]
    assert few < many
    asked = sizes.value_of(()) - many
    goal = size_goal(uneven, find_decoder_stack(uneven), SLEBConfig(max_parameters=asked))
    by_size = sorted(range(8), key=lambda block: sizes.value_of((block,)))
    assert goal.depth(by_size) is None


def test_a_head_of_its_own_counts() -> None:
    model = tiny_model(tie_word_embeddings=True)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    goal = size_goal(model, find_decoder_stack(model), SLEBConfig(max_parameters=1))
    assert goal.value_of(()) == model.num_parameters()


class Secretive(LlamaForCausalLM):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return CausalLMOutputWithPast(logits=super().forward(*args, **kwargs).logits)


def test_a_cache_that_cannot_be_seen_is_refused() -> None:
    model = Secretive(tiny_model().config).eval()
    goal = size_goal(model, find_decoder_stack(model), SLEBConfig(max_memory="1MB"))
    with pytest.raises(UnsupportedModelError, match="How much Secretive caches cannot be determined: it returns none"):
        goal.value_of(())


@pytest.mark.long
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_refused_without_weights(family: str) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny_model(family).config)
    for asked in ({"max_parameters": 10}, {"max_memory": "1kB"}):
        with pytest.raises(ConfigError, match="cannot be met: without all 4 of the 6 blocks"):
            check_size_goal(model, SLEBConfig(**asked), range(NUM_BLOCKS))
    check_size_goal(model, SLEBConfig(sparsity=0.2), range(NUM_BLOCKS))
