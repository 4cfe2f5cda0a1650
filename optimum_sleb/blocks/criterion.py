"""What a search lowers: the loss of each token window, from what a model without some of its blocks predicts."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Protocol, Self

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .forward import losses_of
from .losses import perplexity_of, window_losses
from .stack import DecoderStack


class Batch(Protocol):
    """Token windows of one length: a `WindowBatch`."""

    @property
    def ids(self) -> Tensor:
        """Return the token ids, (batch, length)."""

    @property
    def targets(self) -> Tensor:
        """Return the token that each position predicts, (batch, length), or `losses.IGNORED`."""

    def to(self, device: torch.device) -> Self:
        """Return the batch on a device."""


class Tail(Protocol):
    """Norm and head of a model, behind a final hidden state (batch, length, width): a `BlockRunner`."""

    def nll(self, hidden: Tensor, ids: Tensor, targets: Tensor) -> Tensor:
        """Return the negative log-likelihood, (batch,), summed over positions."""

    def kl(self, hidden: Tensor, dense: Tensor, ids: Tensor, targets: Tensor) -> Tensor:
        """Return the divergence, (batch,), from the dense model, given its final hidden state too."""

    def logits(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """Return the logits (batch, positions, vocabulary), also for a slice of the positions."""


class Criterion(ABC):
    """A loss of each window; the block without which the sum over windows is lowest goes."""

    name: str | None = None  # as a recipe names it
    source: str | None = None  # hash of code that is not this package's, so that a journal of other code is refused
    needs_whole_logits = False  # of a window at once, so that a batch must leave them room
    is_fused = False  # the tail has a kernel for it, which may be compiled

    def prepare(  # noqa: B027 - most need nothing
        self, model: PreTrainedModel, stack: DecoderStack, batches: Iterable[Batch], *, by_block: bool = True
    ) -> None:
        """Look at the dense model before a search, on the windows that it is measured on; `by_block` tells whether
        blocks that are run one by one compute what the model does."""

    @abstractmethod
    def of_hidden(self, tail: Tail, hidden: Tensor, batch: Batch) -> Tensor:
        """Return the losses, (batch,), of a final hidden state (batch, length, width)."""

    @abstractmethod
    def of_model(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Return the losses, (batch,), by one forward pass of the whole model."""


class CrossEntropy(Criterion):
    """The published loss, in nats: mean cross-entropy times length, in parts, so that the logits never exist whole."""

    is_fused = True

    def of_hidden(self, tail: Tail, hidden: Tensor, batch: Batch) -> Tensor:
        """Return the losses, (batch,), of a final hidden state (batch, length, width)."""
        return window_losses(tail.nll(hidden, batch.ids, batch.targets), batch.targets)

    def of_model(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Return the losses, (batch,), by one forward pass of the whole model."""
        return losses_of(model, batch.ids, batch.targets)


CROSS_ENTROPY = CrossEntropy()


# Criteria of this package, by the names that recipes give them.
KL = "kl"


def metric_of(criterion: str | None) -> str:
    """Return what a reader calls the value of a criterion, given its name in a recipe.

    >>> metric_of(None), metric_of("org.module:accuracy")
    ('perplexity', 'accuracy')
    """
    names = {None: "perplexity", KL: "KL divergence from the dense model"}
    return names.get(criterion) or str(criterion).rpartition(":")[2]


def unit_of(criterion: str | None) -> str:
    """Return what the value of a criterion is counted in, for a reader; empty where it has no unit.

    >>> unit_of("kl"), unit_of(None)
    ('nats a token', '')
    """
    return "nats a token" if criterion == KL else ""


def value_of(criterion: str | None, loss: float, *, num_windows: int, num_counted: int) -> float:
    """Return the perplexity of a loss summed over windows, or the mean of a criterion other than cross-entropy: of the
    divergence over the predicted tokens of a window, then over all tokens, in nats; of any other over windows.

    >>> value_of("org.module:accuracy", -3.0, num_windows=4, num_counted=80)
    -0.75
    """
    if criterion == KL:
        return loss / num_counted  # a window's loss is its mean over predictions, times its number of tokens
    return perplexity_of(loss, num_counted) if criterion is None else loss / num_windows
