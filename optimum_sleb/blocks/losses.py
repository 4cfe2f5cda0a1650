"""The calibration loss of a token window, in float32 and in parts, so that the full logits never exist at once."""

import math

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


def kl_of_positions(wanted: Tensor, given: Tensor) -> Tensor:
    """Return KL(wanted || given) in nats at each position, in float32, from logits (..., vocabulary).

    >>> kl_of_positions(torch.zeros(2), torch.tensor([0.0, 1.0]))  # log((1 + e) / 2) - 1/2
    tensor(0.1201)
    """
    wanted, given = wanted.float().log_softmax(dim=-1), given.float().log_softmax(dim=-1)
    return (wanted.exp() * (wanted - given)).sum(dim=-1)


def sums_of_positions(values: Tensor, targets: Tensor) -> Tensor:
    """Return values (batch, positions) summed over the positions that predict a target, (batch,).

    >>> sums_of_positions(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[5, 6, -100]]))
    tensor([3.])
    """
    return values.masked_fill(targets.to(values.device) == IGNORED, 0).sum(dim=1)


def window_losses(nll: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of each token window in nats, (batch,), from its negative log-likelihood summed in float32.

    A window of T tokens has T - 1 predictions; its loss is their mean cross-entropy times T, so that the sum over
    windows divided by the number of tokens is the logarithm of the perplexity (official code of arXiv 2402.09025).
    """
    predictions = (targets != IGNORED).sum(dim=1)
    return nll.to(targets.device) / predictions * (predictions + 1)


def position_slices(targets: Tensor, vocab_size: int, max_logits: int = 0) -> list[slice]:
    """Return slices of the positions of a batch whose logits fit the memory; of equal length T, where possible.

    >>> position_slices(torch.zeros(8, 2048), vocab_size=49152)[:2]
    [slice(0, 128, None), slice(128, 256, None)]
    """
    batch, length = targets.shape
    most = min(length, max(1, (max_logits or MAX_LOGITS) // (batch * vocab_size)))
    # Slices of equal length need only one compiled graph.
    size = next((size for size in range(most, most // 2, -1) if length % size == 0), most)
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def same_losses(losses: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Tell whether losses agree up to the rounding of a precision: 1e-4 (relative), 1e-2 for half precision."""
    tolerance = 1e-4 if dtype in (torch.float32, torch.float64) else 1e-2
    return torch.allclose(losses, expected, rtol=tolerance, atol=0, equal_nan=True)


def perplexity_of(loss_sum: float, num_tokens: int) -> float:
    """Return exp(loss sum in nats / tokens), as the code of arXiv 2402.09025 does; infinity on overflow.

    >>> round(perplexity_of(2.0794 * 100, 100), 2)
    8.0
    """
    try:
        return math.exp(loss_sum / num_tokens)
    except OverflowError:
        return math.inf
