"""The calibration loss of a token window, in float32 and in chunks, so that no full set of logits need exist."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# Logits held at a time, in elements: 2**26 float32 values are 256 MB.
MAX_LOGITS = 2**26


def window_losses(logits_between: Callable[[int, int], Tensor], ids: Tensor, vocab_size: int) -> Tensor:
    """The loss of each window of a batch, as the published procedure counts it.

    A window of T tokens has T - 1 predictions; its loss is their mean cross-entropy times T, so that the sum over
    windows divided by the number of tokens is the logarithm of the perplexity (official code of arXiv 2402.09025).
    Logits may come in half precision; from there on everything is float32, for in half precision near ties flip.

    Args:
        logits_between: Gives the logits of the positions [start, stop) of every window, of shape
            (batch, stop - start, vocabulary).
        ids: Token ids of the windows, of shape (batch, T) with T >= 2.
        vocab_size: Width of the logits; it decides how many positions are asked for at a time.

    Returns:
        Losses in nats, float32, of shape (batch,).

    Example:
        >>> ids = torch.tensor([[0, 1, 2, 3]])
        >>> uniform = torch.zeros(1, 4, 8)
        >>> window_losses(lambda start, stop: uniform[:, start:stop], ids, vocab_size=8) / 4  # log(8) = 2.0794
        tensor([2.0794])
    """
    batch, length = ids.shape
    predictions = length - 1
    chunk = max(1, MAX_LOGITS // (batch * vocab_size))
    total = torch.zeros(batch, dtype=torch.float32, device=ids.device)
    for start in range(0, predictions, chunk):
        stop = min(start + chunk, predictions)
        logits = logits_between(start, stop).float()
        targets = ids[:, start + 1 : stop + 1].to(logits.device)
        nll = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        total += nll.view(batch, -1).sum(dim=1).to(total.device)
    return total / predictions * length
