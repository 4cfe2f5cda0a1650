"""Tiny random models, one for each architecture family that the equivalences are tested on."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

NUM_BLOCKS = 6
VOCAB_SIZE = 64
# Shorter than the probe and the test windows, so that a block that gets another block's mask is found out.
SLIDING_WINDOW = 5

_COMMON: dict[str, Any] = {"vocab_size": VOCAB_SIZE, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_LLAMA_LIKE: dict[str, Any] = {
    **_COMMON,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": NUM_BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}
_GPT_LIKE: dict[str, Any] = {
    **_COMMON,
    "hidden_size": 32,
    "num_hidden_layers": NUM_BLOCKS,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
_MIXED_ATTENTION = ["sliding_attention", "full_attention", "sliding_attention"] * (NUM_BLOCKS // 3)

FAMILIES: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**_LLAMA_LIKE),
    "mistral": lambda: MistralConfig(**_LLAMA_LIKE, sliding_window=SLIDING_WINDOW),
    "qwen2": lambda: Qwen2Config(
        **{name: value for name, value in _LLAMA_LIKE.items() if name != "head_dim"},
        sliding_window=SLIDING_WINDOW,
        use_sliding_window=True,
        layer_types=_MIXED_ATTENTION,
    ),
    "qwen3": lambda: Qwen3Config(
        **_LLAMA_LIKE, sliding_window=SLIDING_WINDOW, use_sliding_window=True, layer_types=_MIXED_ATTENTION
    ),
    "opt": lambda: OPTConfig(**_GPT_LIKE, ffn_dim=48, word_embed_proj_dim=32),
    "gpt2": lambda: GPT2Config(**_COMMON, n_embd=32, n_layer=NUM_BLOCKS, n_head=4, n_positions=128),
    "gpt_neox": lambda: GPTNeoXConfig(**_GPT_LIKE, intermediate_size=48),
    "gemma2": lambda: Gemma2Config(
        **_LLAMA_LIKE, sliding_window=SLIDING_WINDOW, layer_types=_MIXED_ATTENTION, query_pre_attn_scalar=8
    ),
    "gemma3": lambda: Gemma3TextConfig(
        **_LLAMA_LIKE, sliding_window=SLIDING_WINDOW, layer_types=_MIXED_ATTENTION, query_pre_attn_scalar=8
    ),
    "phi3": lambda: Phi3Config(
        **{name: value for name, value in _LLAMA_LIKE.items() if name != "head_dim"}, sliding_window=SLIDING_WINDOW
    ),
    "falcon": lambda: FalconConfig(**_GPT_LIKE, new_decoder_architecture=True, num_kv_heads=2),
    "bloom": lambda: BloomConfig(**_COMMON, hidden_size=32, n_layer=NUM_BLOCKS, n_head=4),
}


def tiny_model(
    family: str = "llama", seed: int = 0, dtype: torch.dtype = torch.float32, **overrides: Any
) -> PreTrainedModel:
    """A random model of a family, with weights large enough that every block matters."""
    config = FAMILIES[family]()
    for name, value in overrides.items():
        setattr(config, name, value)
    return randomise(AutoModelForCausalLM.from_config(config, dtype=dtype), seed).eval()


def randomise(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            # Matrices of about unit gain; norms and biases around what they are.
            parameter.copy_(noise * 0.15 if parameter.dim() > 1 else parameter + noise * 0.05)
    return model


def overflowing_model(token: int, dtype: torch.dtype = torch.float16, block: int = 0) -> PreTrainedModel:
    """A Llama that computes with numbers around 10^6 in one block where it reads one token, and nowhere else."""
    model = tiny_model(dtype=dtype)
    with torch.no_grad():
        for one in model.model.layers:
            one.self_attn.o_proj.weight[0] = 0  # no block writes to the first number of the hidden state,
            one.mlp.down_proj.weight[0] = 0
        model.model.embed_tokens.weight[:, 0] = 0  # which only this token has
        model.model.embed_tokens.weight[token, 0] = 30
        mlp = model.model.layers[block].mlp
        mlp.gate_proj.weight[:, 0] = 200
        mlp.up_proj.weight[:, 0] = 200
    return model


def random_ids(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(3, VOCAB_SIZE, shape, generator=torch.Generator().manual_seed(seed))
