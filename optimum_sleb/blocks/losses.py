"""The calibration loss of a token window, in float32 and in parts, so that the full logits never exist at once."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# Logits held at a time, in elements. Each exists in the model's precision, in float32 and as a log-probability: for a
# half-precision model 2**26 of them take 640 MB.
MAX_LOGITS = 2**26
# In compiled code only the logits in the model's precision exist: 512 MB in half precision.
MAX_COMPILED_LOGITS = 2**28

# Target of a position without a prediction; the default `ignore_index` of PyTorch.
IGNORED = -100


def next_tokens(ids: Tensor) -> Tensor:
    """Return the target of each position, of the shape of the ids.

    >>> next_tokens(torch.tensor([[5, 6, 7]]))
    tensor([[   6,    7, -100]])
    """
    targets = ids.roll(-1, dims=-1)
    targets[..., -1] = IGNORED
    return targets


def nll_sums(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the negative log-likelihood in nats, summed over positions in float32, of shape (batch,).

    >>> nll_sums(torch.zeros(1, 2, 8), torch.tensor([[3, -100]]))  # log(8) = 2.0794
    tensor([2.0794])
    """
    targets = targets.to(logits.device)
    nll = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
    return nll.view(len(targets), -1).sum(dim=1)


def window_losses(nll_between: Callable[[slice], Tensor], targets: Tensor, positions: int) -> Tensor:
    """Return the loss of each token window in nats, float32, of shape (batch,), from sums over slices of positions.

    A window of T tokens has T - 1 predictions; its loss is their mean cross-entropy times T, so that the sum over
    windows divided by the number of tokens is the logarithm of the perplexity (official code of arXiv 2402.09025).
    """
    batch, length = targets.shape
    # Rounding to half precision would change the order of candidates with nearly the same loss.
    total = torch.zeros(batch, dtype=torch.float32, device=targets.device)
    for start in range(0, length, positions):
        total += nll_between(slice(start, min(start + positions, length))).to(total.device)
    predictions = (targets != IGNORED).sum(dim=1)
    return total / predictions * (predictions + 1)


def positions_at_a_time(targets: Tensor, vocab_size: int, max_logits: int = 0) -> int:
    """Return how many positions of a batch can have their logits in memory at once; a divisor of T if one is close.

    >>> positions_at_a_time(torch.zeros(8, 2048), vocab_size=49152)
    128
    """
    batch, length = targets.shape
    most = min(length, max(1, (max_logits or MAX_LOGITS) // (batch * vocab_size)))
    # Parts of equal size need only one compiled graph.
    return next((size for size in range(most, most // 2, -1) if length % size == 0), most)


def same_losses(losses: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Tell whether losses agree up to the rounding of a precision: 1e-4 (relative), 1e-2 for half precision."""
    tolerance = 1e-4 if dtype in (torch.float32, torch.float64) else 1e-2
    return torch.allclose(losses, expected, rtol=tolerance, atol=0, equal_nan=True)
