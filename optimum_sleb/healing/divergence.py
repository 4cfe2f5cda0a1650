"""The Kullback-Leibler divergence from what a teacher predicts, in parts: full float32 logits never exist at once."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..blocks.losses import MAX_LOGITS, kl_of_positions

# Probability below which the logarithm of what is left beside the likeliest tokens is not followed.
_LEAST = 1e-6


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the divergence in nats, summed over positions, of logits (positions, vocabulary) on any two devices.

    >>> divergence(torch.zeros(2, 8), torch.ones(2, 8))
    tensor(0.)
    """
    return _in_parts(_divergence, student, teacher)


def top_divergence(student: Tensor, log_probabilities: Tensor, tokens: Tensor) -> Tensor:
    """Return the divergence, summed over positions, from the log-probabilities of a teacher's likeliest tokens, both
    (positions, k); all others count as one token together, so that it is a lower bound, and exact for all tokens.
    """
    return _in_parts(_top_divergence, student, log_probabilities, tokens)


def _in_parts(function: Callable[..., Tensor], student: Tensor, *wanted: Tensor) -> Tensor:
    size = max(1, MAX_LOGITS // student.shape[-1])
    total = student.new_zeros((), dtype=torch.float32)
    for start in range(0, len(student), size):
        parts = [one[start : start + size].to(student.device) for one in wanted]
        # What a part computes in float32 is computed again in the backward pass, instead of kept.
        total = total + checkpoint(function, student[start : start + size], *parts, use_reentrant=False)
    return total


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    return kl_of_positions(teacher, student).sum()


def _top_divergence(student: Tensor, log_probabilities: Tensor, tokens: Tensor) -> Tensor:
    given, wanted = student.float().log_softmax(-1).gather(-1, tokens.long()), log_probabilities.float()
    total = (wanted.exp() * (wanted - given)).sum()
    if tokens.shape[-1] < student.shape[-1]:
        rest_given, rest_wanted = ((1 - one.exp().sum(-1)).clamp_min(_LEAST) for one in (given, wanted))
        total = total + (rest_wanted * (rest_wanted.log() - rest_given.log())).sum()
    return total
