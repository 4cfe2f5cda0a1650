"""Constants that a family computes from a block's depth, folded into the block's weights.

A block that moves up in the stack would get the constant of its new place. Where the weights can undo that exactly,
they do, and the block computes what it did. Only in float32 and float64: in half precision a factor costs bits.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

# Changes the weights of a module so that it computes with a new constant what it computed with the old one.
Fold = Callable[[Any, float, float], None]


def fold_of(module: nn.Module, attribute: str) -> Fold | None:
    """How a depth-dependent constant can be folded into the weights of its module.

    Args:
        module: The module that has the constant.
        attribute: Name of the constant.

    Returns:
        A function of the module, the constant that its weights were made for and the one that it has now, which
        changes the weights; `None` where there is none, or the precision is too low.

    Example:
        ```python
        fold = fold_of(attention, "scaling")
        fold(attention, 0.5, 0.25)  # the queries are doubled
        ```
    """
    if any(parameter.dtype not in (torch.float32, torch.float64) for parameter in module.parameters()):
        return None
    return FOLDS.get((type(module).__name__, attribute))


def _into_queries(attention: Any, old: float, new: float) -> None:
    """GPT-2 with `scale_attn_by_inverse_layer_idx`: scores are (query . key) * scaling; c_attn holds queries first."""
    factor = torch.ones(attention.c_attn.weight.shape[-1], device=attention.c_attn.weight.device)
    factor[: attention.embed_dim] = old / new
    attention.c_attn.weight = nn.Parameter(attention.c_attn.weight * factor)
    attention.c_attn.bias = nn.Parameter(attention.c_attn.bias * factor)


def _into_lambda_and_output(attention: Any, old: float, new: float) -> None:
    """DiffLlama: lambda = exp(q1 . k1) - exp(q2 . k2) + lambda_init; the output is scaled by 1 - lambda_init.

    lambda_init grows with depth and blocks only move up, so the first exponential grows: it stays positive.
    """
    query, key = attention.lambda_q1, attention.lambda_k1
    dot = query @ key
    missing = (dot.exp() + old - new).log() - dot
    attention.lambda_k1 = nn.Parameter(key + query * missing / (query @ query))
    attention.o_proj.weight = nn.Parameter(attention.o_proj.weight * ((1 - old) / (1 - new)))


FOLDS: dict[tuple[str, str], Fold] = {
    ("GPT2Attention", "scaling"): _into_queries,
    ("DiffLlamaAttention", "lambda_init"): _into_lambda_and_output,
}
