"""The KL divergence of the shortened model from the dense one, as a criterion: it has no noise of labels."""

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .criterion import KL, Batch, Criterion, Tail
from .forward import evaluating, logits_of
from .losses import MAX_LOGITS, kl_of_positions, position_slices, sums_of_positions, window_losses
from .runner import open_runner
from .stack import DecoderStack
from .standins import hidden_state_of
from .state import removing_hooks


class Divergence(Criterion):
    """KL(dense || shortened) in nats: the mean over predictions, times their number and one, as the published loss.

    Of the dense model the last hidden states are kept, in host memory; its logits are made of them part by part.
    """

    name = KL
    is_fused = True

    def __init__(self, max_logits: int = MAX_LOGITS) -> None:
        self._max_logits = max_logits  # elements of the logits in float32 at a time, of both models
        self._states: dict[bytes, Tensor] = {}  # (..., length, width) of the dense model, by token ids
        self._last: tuple[Tensor, Tensor] | None = None  # token ids of a batch, and the states on its device

    @torch.no_grad()
    def prepare(
        self, model: PreTrainedModel, stack: DecoderStack, batches: Iterable[Batch], *, by_block: bool = True
    ) -> None:
        """Run the model, which still has all blocks and its own weights, on the windows it is measured on."""
        self._stack = stack
        inputs = [batch.ids.to(model.device) for batch in batches]
        if by_block:  # those in host memory are brought to the device once for all windows
            with open_runner(model, stack) as runner:
                ends = runner.run_all((runner.start(ids) for ids in inputs), range(len(stack)))
                for end, ids in zip(ends, inputs, strict=True):
                    self._keep(ids, end.hidden)
            return
        for ids in inputs:
            with evaluating(model), removing_hooks() as hooks:
                keep = partial(self._keep_output, ids)
                hooks.append(stack.blocks[max(stack.forms)].register_forward_hook(keep))
                logits_of(model, ids)

    def _keep_output(self, ids: Tensor, _last: nn.Module, _args: object, output: object) -> None:
        self._keep(ids, hidden_state_of(output))

    def _keep(self, ids: Tensor, states: Tensor) -> None:
        for row, state in zip(ids, states.movedim(-3, 0), strict=True):
            self._states[_key(row)] = state.to("cpu", copy=True)  # the model may go on to change it in place

    def of_hidden(self, tail: Tail, hidden: Tensor, batch: Batch) -> Tensor:
        """Return the losses, (batch,), of a final hidden state (batch, length, width)."""
        dense = self.states_of(batch.ids, hidden.device)
        return window_losses(tail.kl(hidden, dense, batch.ids, batch.targets), batch.targets)

    def of_model(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Return the losses, (batch,), by one forward pass of the whole model, which makes its logits whole in its
        own precision; those of the dense model, and all float32, exist part by part."""
        logits, dense = logits_of(model, batch.ids), self.states_of(batch.ids, batch.ids.device)
        with open_runner(model, self._stack) as runner:
            values = [
                kl_of_positions(runner.logits(dense[..., part, :], batch.ids[:, part]), logits[:, part])
                for part in position_slices(batch.targets, logits.shape[-1], self._max_logits // 2)
            ]
        return window_losses(sums_of_positions(torch.cat(values, dim=1), batch.targets), batch.targets)

    def states_of(self, ids: Tensor, device: torch.device) -> Tensor:
        """Return the last hidden states of the dense model, (batch, length, width), for windows it was run on."""
        # The candidates of a step ask for the same batch one after the other.
        if self._last is None or self._last[0] is not ids:
            states = torch.stack([self._states[_key(row)] for row in ids], dim=-3)
            self._last = ids, states.to(device)
        return self._last[1]


def _key(row: Tensor) -> bytes:
    return row.cpu().numpy().tobytes()
