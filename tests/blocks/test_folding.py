"""Depth-dependent constants: a block at a new place, with folded weights, computes what it did at the old one."""

import pytest
import torch
from transformers import DiffLlamaConfig, DiffLlamaForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from optimum_sleb import SLEBPruner, UnsupportedModelError
from optimum_sleb.blocks.folding import find_fold
from optimum_sleb.blocks.forward import logits_of

from ..families import random_ids, randomise


def gpt2(dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    config = GPT2Config(
        vocab_size=64, n_embd=32, n_layer=6, n_head=4, n_positions=64, scale_attn_by_inverse_layer_idx=True
    )
    return randomise(GPT2LMHeadModel(config)).to(dtype).eval()


def diffllama() -> PreTrainedModel:
    config = DiffLlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return randomise(DiffLlamaForCausalLM(config)).eval()


@pytest.mark.long
@pytest.mark.parametrize("build", [gpt2, diffllama])
@pytest.mark.parametrize("removed", [[0], [2, 3], [0, 1, 2, 3, 4]], ids=str)
def test_constants_survive_a_cut_and_a_reload(build, removed: list[int], tmp_path) -> None:
    model, ids = build(), random_ids(2, 20)
    pruner = SLEBPruner(model)
    with torch.no_grad(), pruner._stack.skipping(set(removed)):
        expected = logits_of(model, ids)
    pruner.remove(removed)
    pruner.save_pretrained(tmp_path / "pruned")
    again = type(model).from_pretrained(tmp_path / "pruned")
    with torch.no_grad():
        torch.testing.assert_close(logits_of(again, ids), expected)


@pytest.mark.parametrize(("build", "constant"), [(gpt2, "scaling"), (diffllama, "lambda_init")])
def test_without_the_fold_it_would_be_wrong(build, constant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimum_sleb.blocks.folding.FOLDS", {})
    with pytest.raises(UnsupportedModelError, match=f"because they depend on their position: .*{constant}"):
        SLEBPruner(build()).remove([0])


def test_the_dense_model_is_not_touched_by_a_check() -> None:
    model = gpt2()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    SLEBPruner(model).check()
    assert all(weight.equal(before[name]) for name, weight in model.named_parameters())


def test_half_precision_is_refused() -> None:
    model = gpt2(torch.bfloat16)
    assert find_fold(model.transformer.h[0].attn, "scaling") is None
    with pytest.raises(UnsupportedModelError, match=r"depend on their position: transformer.h.0.attn.scaling"):
        SLEBPruner(model).remove([0])


def test_unknown_constants_have_no_fold() -> None:
    assert find_fold(torch.nn.Linear(2, 2), "scaling") is None
