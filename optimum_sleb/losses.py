"""The calibration loss of a token window, in float32 and in chunks, so that no full set of logits need exist."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# Logits held at a time, in elements. They exist in the model's precision, in float32 and as log-probabilities: in
# half precision 2**26 of them take 640 MB.
MAX_LOGITS = 2**26
# Compiled, nothing but the logits in the model's precision exists: 512 MB in half precision.
MAX_COMPILED_LOGITS = 2**28

# The target of a position that predicts nothing, as everywhere in PyTorch.
IGNORED = -100


def next_tokens(ids: Tensor) -> Tensor:
    """What each position of a window is to predict.

    Args:
        ids: Token ids, of shape (batch, length).

    Returns:
        The ids that follow, of shape (batch, length); `IGNORED` at the last position.

    Example:
        >>> next_tokens(torch.tensor([[5, 6, 7]]))
        tensor([[   6,    7, -100]])
    """
    targets = ids.roll(-1, dims=-1)
    targets[..., -1] = IGNORED
    return targets


def nll_sums(logits: Tensor, targets: Tensor) -> Tensor:
    """The negative log-likelihood of targets, summed over positions in float32.

    Args:
        logits: Logits in any precision, of shape (batch, positions, vocabulary).
        targets: Token ids, of shape (batch, positions); `IGNORED` counts nothing.

    Returns:
        Sums in nats, of shape (batch,).

    Example:
        >>> nll_sums(torch.zeros(1, 2, 8), torch.tensor([[3, -100]]))  # log(8) = 2.0794
        tensor([2.0794])
    """
    targets = targets.to(logits.device)
    nll = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
    return nll.view(len(targets), -1).sum(dim=1)


def window_losses(nll_between: Callable[[slice], Tensor], targets: Tensor, positions: int) -> Tensor:
    """The loss of each window of a batch, as the published procedure counts it.

    A window of T tokens has T - 1 predictions; its loss is their mean cross-entropy times T, so that the sum over
    windows divided by the number of tokens is the logarithm of the perplexity (official code of arXiv 2402.09025).
    Logits may come in half precision; from there on everything is float32, for in half precision near ties flip.

    Args:
        nll_between: Gives the sums of `nll_sums` over a slice of positions, of shape (batch,).
        targets: What each position predicts, of shape (batch, T).
        positions: Positions that are asked for at a time, at most; see `positions_at_a_time`.

    Returns:
        Losses in nats, float32, of shape (batch,).

    Example:
        >>> targets = next_tokens(torch.tensor([[0, 1, 2, 3]]))
        >>> uniform = torch.zeros(1, 4, 8)
        >>> window_losses(lambda part: nll_sums(uniform[:, part], targets[:, part]), targets, positions=2) / 4
        tensor([2.0794])
    """
    batch, length = targets.shape
    total = torch.zeros(batch, dtype=torch.float32, device=targets.device)
    for start in range(0, length, positions):
        total += nll_between(slice(start, min(start + positions, length))).to(total.device)
    predictions = (targets != IGNORED).sum(dim=1)
    return total / predictions * (predictions + 1)


def positions_at_a_time(targets: Tensor, vocab_size: int, max_logits: int = 0) -> int:
    """How many positions of a batch of windows can have their logits at the same time.

    Args:
        targets: What each position predicts, of shape (batch, T).
        vocab_size: Width of the logits.
        max_logits: Elements of the logits held at a time, at most; 0 is `MAX_LOGITS`.

    Returns:
        A number of positions that divides T, where there is one close to the most that fits.

    Example:
        >>> positions_at_a_time(torch.zeros(8, 2048), vocab_size=49152)
        128
    """
    batch, length = targets.shape
    most = min(length, max(1, (max_logits or MAX_LOGITS) // (batch * vocab_size)))
    # Parts of one size run through one compiled graph.
    return next((size for size in range(most, most // 2, -1) if length % size == 0), most)


def same_losses(losses: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether two sets of losses agree up to the rounding of the precision that they were computed in.

    Args:
        losses: Losses.
        expected: Losses of the same shape.
        dtype: The model's precision.

    Returns:
        Whether they agree: to 1e-4 (relative) in float32, to 1e-2 in half precision.

    Example:
        >>> same_losses(torch.tensor([2.0]), torch.tensor([2.001]), torch.bfloat16)
        True
    """
    tolerance = 1e-4 if dtype in (torch.float32, torch.float64) else 1e-2
    return torch.allclose(losses, expected, rtol=tolerance, atol=0, equal_nan=True)
