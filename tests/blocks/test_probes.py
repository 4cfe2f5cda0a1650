from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    BertLMHeadModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    ProphetNetForCausalLM,
)

from optimum_sleb import UnsupportedModelError
from optimum_sleb.blocks.probes import cache_trouble, check_causal_lm, same_logits
from optimum_sleb.blocks.stack import probe_ids

from ..architectures.tiny import tiny_model as tiny
from ..families import overflowing_model, randomise, tiny_model


def test_causal_models_pass() -> None:
    check_causal_lm(tiny_model("llama"))
    assert cache_trouble(tiny_model("llama")) is None


def test_a_model_that_looks_ahead() -> None:
    config = BertConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    with pytest.raises(UnsupportedModelError, match="depend on later tokens.*is_decoder=True"):
        check_causal_lm(randomise(BertLMHeadModel(config)))


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_looking_ahead_in_half_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    for family in ("prophetnet", "bert"):
        tiny(family).save_pretrained(tmp_path / family)
    # Its relative positions mix tokens a very little, also in float64; rounding makes more of it.
    check_causal_lm(ProphetNetForCausalLM.from_pretrained(tmp_path / "prophetnet", dtype=dtype))
    bert = BertLMHeadModel.from_pretrained(tmp_path / "bert", dtype=dtype, is_decoder=False)
    with pytest.raises(UnsupportedModelError, match="depend on later tokens"):
        check_causal_lm(bert)


def test_a_classifier() -> None:
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, pad_token_id=0
    )
    with pytest.raises(UnsupportedModelError, match="LlamaForSequenceClassification gives no logits over its voc"):
        check_causal_lm(LlamaForSequenceClassification(config))


def test_weights_rescaled_by_block_number() -> None:
    model = tiny("rwkv")
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    with pytest.raises(UnsupportedModelError, match="rescales the weights of its.*load it with rescale_every=0"):
        check_causal_lm(model)
    assert all(weight.equal(before[name]) for name, weight in model.named_parameters())
    model.config.rescale_every = 0
    check_causal_lm(model)


def test_weights_that_change_while_the_model_runs() -> None:
    model = tiny_model("llama")
    layer = model.model.layers[1]

    def rescale(*_: object) -> None:
        layer.mlp.up_proj.weight.mul_(1.5)

    layer.register_forward_pre_hook(rescale)
    with pytest.raises(UnsupportedModelError, match=r"changes its weights .*model.layers.1.mlp.up_proj.weight"):
        check_causal_lm(model)


def test_a_cache_that_goes_wrong() -> None:
    model = tiny_model("llama")
    model.model.layers[2].self_attn.layer_idx = 7  # as after a cut without renumbering
    assert "generation with a cache" in cache_trouble(model)


def test_a_model_that_cannot_generate() -> None:
    model = tiny_model("llama")
    model.can_generate = lambda: False
    assert cache_trouble(model) is None


def test_same_logits() -> None:
    one = torch.randn(2, 3)
    assert same_logits(one, one + 1e-8)
    assert not same_logits(one, one + 1e-3)
    assert not same_logits(one, one[:1])


@pytest.mark.parametrize(
    ("dtype", "remedy"),
    [(torch.float16, "float16 does not hold.*dtype='bfloat16'"), (torch.float32, "check its weights")],
)
def test_a_model_that_gives_no_finite_logits(dtype: torch.dtype, remedy: str) -> None:
    model = overflowing_model(int(probe_ids(tiny_model())[0, 3]), dtype)
    if dtype == torch.float32:
        check_causal_lm(model)
        model.model.norm.weight.data[0] = torch.nan
    with pytest.raises(UnsupportedModelError, match=f"NaN or infinite for a few tokens; .*{remedy}"):
        check_causal_lm(model)
