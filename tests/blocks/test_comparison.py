"""What is shared by the checks of several removals changes no verdict and no message."""

from collections import Counter
from itertools import combinations

import pytest
import torch
from transformers import PreTrainedModel

from optimum_sleb.blocks import comparison as module
from optimum_sleb.blocks.comparison import Comparison
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.blocks.verify import reason_not_removable, removable_blocks

from ..architectures.tiny import tiny_model as tiny_architecture
from ..families import FAMILIES, NUM_BLOCKS, tiny_model
from .slow_checks import slow_reason
from .test_verify import strange

# Every mechanism that bars blocks, or lets attributes differ: periods, index lists, first blocks, values handed on,
# shared blocks and keys, a tensor with a slice per block, constants that are folded, positions counted in other ways.
ARCHITECTURES = (
    "jamba", "lfm2", "gemma3n_text", "qwen2_moe", "deepseek_v3", "diffllama", "zaya", "zamba2", "longcat_flash",
    "minimax", "bart", "mamba2", "rwkv", "gemma2", "cohere2",
)  # fmt: skip
STRANGE = (
    {"widths": [8, 4, 12, 6, 10]},
    {"wide_blocks": [2]},
    {"multiply_by_depth": True},
    {"long_blocks": [3], "window_name": "window_size"},
    {"at_least": 4},
    {"at_least": 5},
)


def assert_same_reasons(model: PreTrainedModel) -> dict[str | None, int]:
    """Ask for each block, and some sets of blocks, with one comparison; return how often each reason came."""
    stack = find_decoder_stack(model)
    shared = Comparison(model, stack)
    singles = [{block} for block in range(len(stack))]
    pairs = [set(pair) for pair in combinations(range(len(stack)), 2)][::4]
    reasons = Counter()
    for removed in [*singles, *pairs, {1, 2, 3}, *reversed(singles)]:  # twice: what is kept must not have changed
        found = reason_not_removable(model, stack, removed, run=False, comparison=shared)
        assert found == slow_reason(model, stack, removed), removed
        reasons[found and found.split(":")[0].split("(")[0]] += 1
    return reasons


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_reasons_are_those_of_a_comparison_from_nothing(family: str) -> None:
    assert assert_same_reasons(tiny_model(family))


@pytest.mark.long
@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_reasons_of_architectures_that_bar_blocks(model_type: str) -> None:
    assert assert_same_reasons(tiny_architecture(model_type))


@pytest.mark.parametrize("options", STRANGE, ids=str)
def test_reasons_of_a_family_that_nobody_foresaw(options: dict) -> None:
    assert assert_same_reasons(strange(**options))


def test_scaled_queries_of_half_precision_are_not_folded() -> None:
    half = tiny_model("gpt2", dtype=torch.bfloat16, scale_attn_by_inverse_layer_idx=True)
    assert any(reason is not None for reason in assert_same_reasons(half))


@pytest.mark.parametrize(("family", "built"), [("llama", 1), ("gemma3", 3)])
def test_removals_alike_are_rebuilt_once(family: str, built: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the six blocks of Gemma 3, the second and the fifth have full attention: the two between are alike."""
    model, kept = tiny_model(family), []
    real = module.build_shortened

    def counted(model: PreTrainedModel, stack, kept_now, **options) -> PreTrainedModel:
        kept.append(list(kept_now))
        return real(model, stack, kept_now, **options)

    monkeypatch.setattr(module, "build_shortened", counted)
    assert removable_blocks(model, find_decoder_stack(model), range(1, NUM_BLOCKS - 1))[1] == {}
    assert len(kept) == built + 1, kept  # and the dense model
