"""Rules for config fields that refer to blocks by index, threshold or period. Lists with one entry per block need no
rule (they are sliced). A family that needs a rule gets a line here and a test."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Removal:
    """A removal, as the rules see it."""

    config: PreTrainedConfig  # the text config before the removal
    num_blocks: int  # before
    kept: Sequence[int]  # indices of the blocks that stay, ascending

    def num_kept_before(self, index: int) -> int:
        """Return how many of the first `index` blocks stay.

        >>> from transformers import LlamaConfig
        >>> Removal(LlamaConfig(), 8, [0, 1, 2, 5]).num_kept_before(3)
        3
        """
        return sum(old < index for old in self.kept)


def _indices(removal: Removal, value: list[int]) -> list[int]:
    return [new for new, old in enumerate(removal.kept) if old in value]


def _indices_from_one(removal: Removal, value: list[int]) -> list[int]:
    return [new + 1 for new, old in enumerate(removal.kept) if old + 1 in value]


def _threshold(removal: Removal, value: int) -> int:
    return removal.num_kept_before(value)


def _last_index(removal: Removal, value: int) -> int:
    return removal.num_kept_before(value + 1) - 1


def _threshold_from_end(removal: Removal, value: int) -> int:
    return len(removal.kept) - removal.num_kept_before(removal.num_blocks - value)


def _dense_blocks(removal: Removal, value: list[int]) -> list[int]:
    step = removal.config.decoder_sparse_step
    return _indices(removal, [old for old in range(removal.num_blocks) if old in value or (old + 1) % step])


def _cycle(removal: Removal, value: list[str]) -> list[str]:
    return [value[old % len(value)] for old in removal.kept]


def _attention_types(removal: Removal, _value: Any) -> list[Any]:
    return [[[removal.config.attention_layers[old] for old in removal.kept], 1]]


def _per_depth(removal: Removal, value: float) -> float:
    return value * sqrt(len(removal.kept) / removal.num_blocks)


def _num_kept(removal: Removal, _value: int) -> int:
    return len(removal.kept)


def _zero(_removal: Removal, _value: int) -> int:
    return 0


# Field: what it means, and its new value.
RULES: dict[str, tuple[str, Callable[[Removal, Any], Any]]] = {
    "attention_types": ("kinds of attention, as patterns with a number of repeats", _attention_types),
    "attn_layer_indices": ("the blocks with attention", _indices),
    "block_types": ("kinds of blocks, repeated from the start", _cycle),
    "cross_attention_layers": ("the blocks with cross-attention", _indices),
    "decoder_sparse_step": ("every so many blocks have experts; `mlp_only_layers` names the others", lambda *_: 1),
    "first_k_dense_replace": ("so many first blocks have no experts", _threshold),
    "full_attn_idxs": ("the blocks with full attention", _indices),
    "hybrid_layer_ids": ("the blocks with attention", _indices),
    "local_layer_ids": ("the blocks with sliding attention", _indices),
    "max_window_layers": ("so many first blocks have full attention", _threshold),
    "mlp_only_layers": ("blocks without experts, besides those of `decoder_sparse_step`", _dense_blocks),
    "moe_layer_end_index": ("the last block with experts", _last_index),
    "moe_layer_start_index": ("the first block with experts", _threshold),
    "moe_layers": ("the blocks with experts", _indices),
    "num_blocks": ("a second name of the number of blocks", _num_kept),
    "num_dense_layers": ("so many first blocks have no experts", _threshold),
    "num_kv_shared_layers": ("so many last blocks use keys and values of earlier ones", _threshold_from_end),
    "num_mtp_layers": ("blocks for multi-token prediction, which a causal LM does not load", _zero),
    "num_nextn_predict_layers": ("blocks for multi-token prediction, which a causal LM does not load", _zero),
    "ple_layer_ids": ("blocks with their own embedding, counted from 1", _indices_from_one),
    "scale_depth": ("the residual branches are scaled by this / sqrt(number of blocks)", _per_depth),
}

# Two fields that make a layout: block i is of a kind where i % period == offset.
PERIODS: dict[str, str] = {"attn_layer_period": "attn_layer_offset", "expert_layer_period": "expert_layer_offset"}


def fit_period(removal: Removal, period: int, offset: int) -> tuple[int, int] | None:
    """Return a period and an offset that describe the remaining layout, or None where there are none.

    >>> from transformers import LlamaConfig
    >>> fit_period(Removal(LlamaConfig(), 8, [1, 5]), period=4, offset=1)
    (1, 0)
    """
    layout = [old % period == offset for old in removal.kept]
    # The period may be one more than the number of blocks: with the last offset, no block is of the kind.
    for candidate in [period, *range(1, len(layout) + 2)]:
        for shift in [offset, *range(candidate)]:
            if shift < candidate and layout == [new % candidate == shift for new in range(len(layout))]:
                return candidate, shift
    return None


def num_image_blocks(config: PreTrainedConfig) -> int:
    """Return how many first blocks of the text stack take image features beside the hidden state; 0 for most."""
    # Calibration text cannot show whether such a block can go, so they stay. Qwen3-VL's DeepStack adds one level of
    # features after each of the first blocks; Granite Vision lists the blocks.
    vision = getattr(config, "vision_config", None)
    levels = getattr(vision, "deepstack_visual_indexes", None) or ()
    named = [block for _, block in getattr(config, "deepstack_layer_map", None) or ()]
    named += getattr(config, "spatial_target_layers", None) or []
    return max(len(levels), *(block + 1 for block in named), 0)
