"""Folding of depth-dependent constants into a block's weights, so that a block that moves up computes the same."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

# Fold(module, old, new) edits the module's weights: with the constant `new` it computes what it did with `old`.
Fold = Callable[[Any, float, float], None]


def find_fold(module: nn.Module, attribute: str) -> Fold | None:
    """Return the function that folds a constant into the weights of its module, or None where there is none."""
    # In half precision a factor costs bits, so nothing is folded.
    if any(parameter.dtype not in (torch.float32, torch.float64) for parameter in module.parameters()):
        return None
    return FOLDS.get((type(module).__name__, attribute))


def _fold_into_gpt2_queries(attention: Any, old: float, new: float) -> None:
    """Scale the queries of GPT-2 (`scale_attn_by_inverse_layer_idx`), where scores = (query . key) * scaling."""
    # c_attn holds queries, keys and values, in this order.
    factor = torch.ones(attention.c_attn.weight.shape[-1], device=attention.c_attn.weight.device)
    factor[: attention.embed_dim] = old / new
    attention.c_attn.weight = nn.Parameter(attention.c_attn.weight * factor)
    attention.c_attn.bias = nn.Parameter(attention.c_attn.bias * factor)


def _fold_into_diffllama_lambda(attention: Any, old: float, new: float) -> None:
    """Adapt DiffLlama's lambda = exp(q1 . k1) - exp(q2 . k2) + lambda_init, and its output, which is scaled by
    1 - lambda_init."""
    query, key = attention.lambda_q1, attention.lambda_k1
    dot = query @ key
    # lambda_init grows with depth, and blocks only move up: old > new, so the argument of the logarithm is positive.
    missing = (dot.exp() + old - new).log() - dot
    attention.lambda_k1 = nn.Parameter(key + query * missing / (query @ query))
    attention.o_proj.weight = nn.Parameter(attention.o_proj.weight * ((1 - old) / (1 - new)))


FOLDS: dict[tuple[str, str], Fold] = {
    ("GPT2Attention", "scaling"): _fold_into_gpt2_queries,
    ("DiffLlamaAttention", "lambda_init"): _fold_into_diffllama_lambda,
}
