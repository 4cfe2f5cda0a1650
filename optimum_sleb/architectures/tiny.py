"""Tiny random models of every architecture, with every per-layer mechanism of their configs switched on.

They are harder than most released checkpoints on purpose: attention of several kinds, dense and sparse layers mixed,
keys and values shared, so that a block that silently becomes another block after surgery is found out.
"""

from typing import Any

import torch
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

NUM_BLOCKS = 8
VOCAB_SIZE = 96
# Shorter than the windows of the trials, so that a block that gets another block's mask is found out.
SLIDING_WINDOW = 5

# Values for fields of these names, in whatever config they occur.
_SMALL: dict[str, Any] = {
    # sizes of the whole model
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "d_model": 32,
    "n_embd": 32,
    "emb_dim": 32,
    "embedding_size": 32,
    "max_position_embeddings": 128,
    "n_positions": 128,
    "n_ctx": 128,
    "max_seq_len": 128,
    "type_vocab_size": 2,
    "vocab_size_per_layer_input": VOCAB_SIZE,
    "hidden_size_per_layer_input": 8,
    # number of blocks (of encoders too: the decoder-only models of encoder-decoder families size their cache by them)
    "num_hidden_layers": NUM_BLOCKS,
    "num_layers": NUM_BLOCKS,
    "n_layer": NUM_BLOCKS,
    "n_layers": NUM_BLOCKS,
    "decoder_layers": NUM_BLOCKS,
    "encoder_layers": NUM_BLOCKS,
    "num_decoder_layers": NUM_BLOCKS,
    "num_encoder_layers": NUM_BLOCKS,
    # attention
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_kv_heads": 2,
    "head_dim": 8,
    "n_head": 4,
    "n_heads": 4,
    "num_heads": 4,
    "attention_heads": 4,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "rotary_dim": 8,
    "kv_channels": 8,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "qk_head_dim": 16,
    "v_head_dim": 8,
    "query_pre_attn_scalar": 8,
    "sliding_window": SLIDING_WINDOW,
    "sliding_window_size": SLIDING_WINDOW,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 2,
    "swa_head_dim": 8,
    "index_head_dim": 8,
    "index_n_heads": 2,
    "index_topk": 4,
    "d_rel": 8,
    "rel_extent": 32,
    "attention_hidden_size": 32,
    "attention_head_dim": 8,
    # feed-forward layers and experts
    "intermediate_size": 48,
    "n_inner": 48,
    "d_inner": 48,
    "dff": 48,
    "ffn_dim": 48,
    "ffn_hidden_size": 48,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_local_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "moe_topk": 2,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "moe_num_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "num_expert_group": 1,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "shared_intermediate_size": 16,
    # state-space and linear-attention layers
    "mamba_d_state": 8,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
    "mamba_dt_rank": 4,
    "n_mamba_heads": 2,
    "state_size": 8,
    "time_step_rank": 4,
    "chunk_size": 8,
    "n_groups": 1,
    "conv_kernel_size": 4,
    "linear_conv_kernel_dim": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_head_dim": 8,
    "linear_num_heads": 4,
    # no randomness in a forward, and token ids that exist
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "embd_pdrop": 0.0,
    "resid_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "is_decoder": True,
}

_HALF = NUM_BLOCKS // 2
_SLIDING_AND_FULL = ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"] * 2
_LINEAR_AND_FULL = ["linear_attention", "full_attention"] * _HALF
_DENSE_AND_SPARSE = ["dense", "dense", "sparse", "dense", "sparse", "sparse", "dense", "sparse"]
_ALL_HEADS: dict[str, Any] = {"num_key_value_heads": 4}  # multi-head latent attention has no grouped queries

# What a family needs besides: mechanisms that its default config leaves off, and sizes that must fit each other.
_HARD: dict[str, dict[str, Any]] = {
    "axk1": _ALL_HEADS,
    "axk2": _ALL_HEADS,
    "bailing_hybrid": _ALL_HEADS,
    "bamba": {"attn_layer_indices": [1, 4, 6]},
    "cohere2_moe": {"mlp_layer_types": _DENSE_AND_SPARSE},
    "cohere_compass_text": {
        "layer_types": _SLIDING_AND_FULL,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": theta, "mrope_section": [2, 1, 1]}
            for kind, theta in (("full_attention", 1e6), ("sliding_attention", 1e4))
        },
    },
    "cpmant": {
        "dim_head": 8,
        "dim_ff": 48,
        "position_bias_num_buckets": 16,
        "position_bias_max_distance": 32,
        "prompt_length": 8,
        "prompt_types": 4,
        "segment_types": 4,
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32},
    },
    "deepseek_v2": {**_ALL_HEADS, "first_k_dense_replace": 3},
    "deepseek_v3": {**_ALL_HEADS, "first_k_dense_replace": 3},
    "deepseek_v32": _ALL_HEADS,
    "deepseek_v4": {"o_lora_rank": 16, "o_groups": 2},
    "dots1": {"first_k_dense_replace": 3, "layer_types": _SLIDING_AND_FULL, "max_window_layers": 4},
    "dots3_note_vision_encoder": {"adapter_in_dim": 32, "adapter_out_dim": 32},
    "dots3_note_text": {
        **_ALL_HEADS,
        "shared_experts_intermediate_size": 16,
        "swa_num_attention_heads": 2,
        "swa_num_key_value_heads": 2,
        "swa_q_lora_rank": 16,
        "swa_kv_lora_rank": 16,
        "swa_head_dim": 16,
        "swa_qk_nope_head_dim": 8,
        "swa_v_head_dim": 8,
    },
    "ernie4_5_moe": {"moe_k": 2, "moe_layer_start_index": 2, "moe_layer_end_index": 5, "moe_layer_interval": 1},
    "falcon_h1": {"mamba_d_ssm": 64},
    "flint": {"mlp_only_layers": [1, 4], "decoder_sparse_step": 2},
    "gemma3n_text": {
        "layer_types": ["sliding_attention", "full_attention"] * _HALF,
        "num_kv_shared_layers": 2,
        "laurel_rank": 8,
        "activation_sparsity_pattern": [0.5] * _HALF + [0.0] * _HALF,
        "intermediate_size": [48, 40, 48, 40, 48, 48, 40, 48],
    },
    "gemma4_text": {"num_kv_shared_layers": 2, "global_head_dim": 16},
    "gemma4_unified_text": {"num_kv_shared_layers": 2, "global_head_dim": 16},
    "glm4_moe": {"first_k_dense_replace": 3},
    "glm4_moe_lite": _ALL_HEADS,
    "gpt2": {"scale_attn_by_inverse_layer_idx": True},
    "glm_moe_dsa": {
        **_ALL_HEADS,
        "indexer_types": ["full", "full", "shared", "full", "shared", "full", "full", "shared"],
    },
    "gpt_neo": {
        "attention_types": [[["global", "local"], 3], [["global", "global"], 1]],
        "window_size": SLIDING_WINDOW,
    },
    "granite_swa": {"layer_rope_theta": [1e4, 1e5, 1e4, 1e6, 1e4, 1e5, 1e5, 1e4]},
    "granitemoe_swa": {"layer_rope_theta": [1e4, 1e5, 1e4, 1e6, 1e4, 1e5, 1e5, 1e4]},
    "granitemoehybrid": {"layer_types": _LINEAR_AND_FULL},
    "hunyuan_v1_moe": {"moe_topk": [1, 2, 1, 2, 2, 1, 2, 1]},
    "inkling_text": {"mlp_layer_types": _DENSE_AND_SPARSE},
    "kimi_linear": _ALL_HEADS,
    "laguna": {"layer_types": _SLIDING_AND_FULL, "num_attention_heads_per_layer": [4, 2, 4, 2, 2, 4, 4, 2]},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv", "conv"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv", "conv"] * 2, "num_dense_layers": 3},
    "llama4_text": {
        "intermediate_size_mlp": 48,
        "moe_layers": [1, 2, 5],
        "no_rope_layers": [1, 1, 0, 1, 0, 1, 1, 0],
        "attention_chunk_size": SLIDING_WINDOW,
        "floor_scale": 4,
    },
    "longcat_flash": {**_ALL_HEADS, "zero_expert_num": 2, "expert_ffn_hidden_size": 16},
    "mamba2": {"num_heads": 8},
    "mellum": {"layer_types": _SLIDING_AND_FULL, "mlp_layer_types": _DENSE_AND_SPARSE},
    "minicpm3": _ALL_HEADS,
    "minimax_m3_vl_text": {
        "dense_intermediate_size": 48,
        "index_block_size": 4,
        "mlp_layer_types": _DENSE_AND_SPARSE,
    },
    "mllama_text_model": {"cross_attention_layers": [2, 5], "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
    "nemotron_h": {"layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"] * 2},
    "musicgen_decoder": {"num_codebooks": 1},
    "musicgen_melody_decoder": {"num_codebooks": 1},
    "qwen2": {"use_sliding_window": True, "layer_types": _SLIDING_AND_FULL, "max_window_layers": 4},
    "qwen2_moe": {
        "use_sliding_window": True,
        "layer_types": _SLIDING_AND_FULL,
        "max_window_layers": 4,
        "mlp_only_layers": [1, 4],
        "decoder_sparse_step": 2,
    },
    "qwen3": {"use_sliding_window": True, "layer_types": _SLIDING_AND_FULL, "max_window_layers": 4},
    "qwen3_moe": {"mlp_only_layers": [1, 4], "decoder_sparse_step": 2},
    "qwen3_next": {"mlp_only_layers": [1, 4], "decoder_sparse_step": 2},
    "qwen4_exp_text": {
        "ple_layer_ids": [3],
        "layer_types": ["linear_attention", "indexed_attention", "linear_attention", "linear_attention"] * 2,
        "hc_lowrank": 8,
        "heads_per_ngram": 2,
        "ngram_vocab_size_base": 50,
        "make_ngram_vocab_size_divisible_by": 4,
        "split_ngram_parts": 1,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 4,
        "indexer_compress_ratio": 2,
    },
    "recurrent_gemma": {"lru_width": 32, "attention_window_size": SLIDING_WINDOW},
    "roc_bert": {
        "pronunciation_embed_dim": 8,
        "pronunciation_vocab_size": 16,
        "shape_embed_dim": 8,
        "shape_vocab_size": 16,
    },
    "smollm3": {
        "use_sliding_window": True,
        "layer_types": _SLIDING_AND_FULL,
        "no_rope_layers": [1, 1, 0, 1, 0, 1, 1, 0],
    },
    "xlm": {"causal": True},
    "xlnet": {"mem_len": 16},
    "xlstm": {
        "num_blocks": NUM_BLOCKS,
        "hidden_size": 64,
        "embedding_dim": 64,
        "qk_dim_factor": 1.0,
        "chunk_size": 64,
    },
    "xmod": {"default_language": "en_XX"},
    "youtu": _ALL_HEADS,
    "zamba": {"attention_hidden_size": 64, "attention_head_dim": 16},
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "linear_attention"] * 2,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
    },
    "zaya": {"num_experts_per_tok": 1},
}


def tiny_config(model_type: str) -> PreTrainedConfig:
    """A small config of an architecture, with its per-layer mechanisms switched on.

    Args:
        model_type: Name of the architecture, as in `AutoConfig`.

    Returns:
        The config.

    Example:
        >>> tiny_config("qwen3").num_hidden_layers
        8
    """
    return _shrink(CONFIG_MAPPING[model_type])


def tiny_model(model_type: str, seed: int = 0) -> PreTrainedModel:
    """A small random causal language model of an architecture, in float32.

    Args:
        model_type: Name of the architecture.
        seed: Seed of the weights.

    Returns:
        The model. Its weights are large enough that every block matters.

    Example:
        >>> type(tiny_model("llama")).__name__
        'LlamaForCausalLM'
    """
    torch.manual_seed(seed)
    config = tiny_config(model_type)
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if not isinstance(config, model_class.config_class):  # the language model of a composite
        config = config.get_text_config(decoder=True)
    model = model_class._from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape)
            # Matrices of about unit gain; norms, biases and decay rates around what they are.
            parameter.copy_(noise * 0.15 if parameter.dim() > 1 else parameter + noise * 0.05)
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0.0  # as it is in any checkpoint that was loaded
    return model.eval()


def _shrink(config_class: type[PreTrainedConfig]) -> PreTrainedConfig:
    default = config_class()
    fields = default.to_dict()
    values = {name: value for name, value in _SMALL.items() if name in fields}
    # Configs are strict: where a field is a whole number, 0.0 is refused.
    values |= {name: int(value) for name, value in values.items() if type(fields[name]) is int}
    count = getattr(default, "num_hidden_layers", None)
    for name, value in fields.items():
        if isinstance(value, list) and len(value) == count and all(isinstance(item, str) for item in value):
            values[name] = _irregular(sorted(set(value)))
    for name in config_class.sub_configs:
        if isinstance(getattr(default, name, None), PreTrainedConfig):
            values[name] = _shrink(type(getattr(default, name))).to_dict()
    return config_class(**(values | _HARD.get(config_class.model_type, {})))


def _irregular(kinds: list[str]) -> list[str]:
    """One kind of layer for each block, in an order without a period; the last block is of the first kind."""
    order = (0, 1, 0, 0, 1, 2, 1, 0)
    return [kinds[number % len(kinds)] for number in order]
