"""The perplexity on the calibration text, where a search lowers another criterion."""

from collections.abc import Collection
from dataclasses import replace
from math import isfinite
from typing import Any

from ..blocks.criterion import CROSS_ENTROPY, KL
from ..blocks.kernels import UNCOMPILED
from ..blocks.losses import perplexity_of
from .candidate_losses import CandidateLosses
from .dense_losses import of_dense
from .exact import ExactLosses


def perplexity_without(losses: CandidateLosses, removed: Collection[int]) -> float | None:
    """Return the perplexity of the model as it is now, without some blocks, by one pass over the stack; `None` where
    it is not finite, where the losses tell it themselves, and by a function of one's own, which has its own measure.
    Raise OutOfMemoryError if not even one window fits."""
    if losses.criterion.name != KL:
        return None
    if not removed:
        losses = of_dense(losses)
    # For one pass, compiling another loss does not pay.
    changes: dict[str, Any] = {"kernels": UNCOMPILED} if isinstance(losses, ExactLosses) else {}
    by_cross_entropy = replace(losses, criterion=CROSS_ENTROPY, journal=None, **changes)
    alive = [block for block in range(len(losses.stack)) if block not in removed]
    loss = by_cross_entropy.losses_of(alive).double().sum().item()
    perplexity = perplexity_of(loss, losses.windows.num_counted)
    return perplexity if isfinite(perplexity) else None
