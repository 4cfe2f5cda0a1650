"""The published procedure: for every candidate, run the whole model without it. Slow, obvious, and the yardstick."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..blocks.forward import logits_of, measuring, vocab_size_of
from ..blocks.stack import DecoderStack
from ..calibration.windows import TokenWindows
from ..losses import window_losses


class ReferenceLosses:
    """Losses of the candidates, each by one full forward per batch of windows.

    Args:
        model: The model.
        stack: Its decoder blocks.
        windows: The calibration windows.
        batch_size: Windows in one forward pass.
        on_progress: Called with the number of (candidate, window) pairs that were just measured.

    Example:
        ```python
        measure = ReferenceLosses(model, stack, windows)
        losses = measure(alive=range(30), candidates=range(1, 29))  # (28, windows)
        ```
    """

    def __init__(
        self,
        model: PreTrainedModel,
        stack: DecoderStack,
        windows: TokenWindows,
        batch_size: int = 1,
        on_progress: Callable[[int], object] = lambda pairs: None,
    ) -> None:
        self._model = model
        self._stack = stack
        self._windows = windows
        self._batch_size = batch_size
        self._on_progress = on_progress
        self.block_passes = 0

    def __call__(self, alive: Sequence[int], candidates: Sequence[int]) -> Tensor:
        """Measure every candidate's removal; see `CandidateLosses`."""
        return torch.stack(
            [self.model_losses([block for block in alive if block != candidate]) for candidate in candidates]
        )

    def model_losses(self, alive: Sequence[int]) -> Tensor:
        """The losses of the model made of some of its blocks.

        Args:
            alive: Indices of the blocks that run.

        Returns:
            The loss of each window, of shape (windows,), on the CPU.

        Example:
            ```python
            dense = measure.model_losses(range(30)).sum()
            ```
        """
        losses = torch.empty(len(self._windows))
        removed = set(range(len(self._stack))) - set(alive)
        with measuring(self._model), self._stack.without(removed):
            for rows, ids in self._windows.batches(self._batch_size):
                losses[rows] = full_forward_losses(self._model, ids)
                self.block_passes += len(alive)
                self._on_progress(len(ids))
        return losses


def full_forward_losses(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """The loss of each window of a batch, by one ordinary forward of the model.

    Args:
        model: The model.
        ids: Token ids, of shape (batch, length).

    Returns:
        Losses in nats, as `losses.window_losses` defines them, of shape (batch,), on the model's device.

    Example:
        ```python
        perplexity = (full_forward_losses(model, ids).sum() / ids.numel()).exp()
        ```
    """
    logits = logits_of(model, ids)
    return window_losses(lambda start, stop: logits[:, start:stop], ids.to(logits.device), vocab_size_of(model))
