"""Running of chosen decoder blocks on a hidden state; everything around them is left to the model itself."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..runtime.undo import undoing
from .criterion import CROSS_ENTROPY, Batch, Criterion
from .forward import evaluating, logits_of, vocab_size_of
from .kernels import UNCOMPILED, Kernels
from .losses import position_slices
from .stack import DecoderStack
from .standins import ArgumentKey, StandIn, hidden_state_of


class _LastBlockReachedError(Exception):
    """Signal that ends a forward which only serves to record the arguments of the blocks."""


# Positional and keyword arguments of a block, besides the hidden state.
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Stream:
    """The hidden state of a batch between two blocks, and all that the next blocks are called with."""

    hidden: Tensor  # (batch, length, width)
    arguments: dict[int, Arguments]  # of each block on this batch: masks, position embeddings, ...
    # Values that the block before returned for the next one (few architectures), by where that one receives them.
    carried: dict[ArgumentKey, Any] = field(default_factory=dict)

    def arguments_of(self, index: int) -> Arguments:
        """Return the positional and keyword arguments of a block, besides the hidden state."""
        args, kwargs = self.arguments[index]
        if self.carried:
            args = tuple(self.carried.get(key, value) for key, value in enumerate(args))
            kwargs = {name: self.carried.get(name, value) for name, value in kwargs.items()}
        return args, kwargs


class BlockRunner:
    """Runner of any selection of a model's blocks, opened by `open_runner`; a stand-in takes the place of every block.

    `start` runs the model's own forward: the stand-ins record each block's arguments. `run` calls the real blocks with
    these. `losses` and `logits` run the forward again: the stand-ins return the final hidden state to norm and head.
    """

    def __init__(self, model: PreTrainedModel, stack: DecoderStack, kernels: Kernels, criterion: Criterion) -> None:
        self._model = model
        self._stack = stack
        self._kernels = kernels
        self._criterion = criterion
        self._blocks = list(stack.blocks)
        self._arguments: dict[int, Arguments] = {}
        self._first_hidden: Tensor | None = None
        self._final_hidden: Tensor | None = None
        self.block_passes = 0

    def put_stand_ins(self) -> None:
        """Put a stand-in in the place of every block that plain text runs."""
        for index, form in self._stack.forms.items():
            self._stack.blocks[index] = StandIn(self._blocks[index], form, partial(self._respond, index))

    def put_blocks_back(self) -> None:
        """Put every block back in its place, and forget what the last batch left."""
        for index, block in enumerate(self._blocks):
            self._stack.blocks[index] = block
        self._arguments = {}
        self._first_hidden = None

    def _respond(self, index: int, hidden: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        if self._final_hidden is not None:
            return self._final_hidden
        if not self._arguments:
            self._first_hidden = hidden
        self._arguments[index] = (args, kwargs)
        if len(self._arguments) == len(self._stack.forms):
            raise _LastBlockReachedError
        return hidden

    def block(self, index: int) -> nn.Module:
        """Return a decoder block, not its stand-in, on the device that computes; a loader may move it away later."""
        if self._stack.loader is not None:
            self._stack.loader.load(index)
        return self._blocks[index]

    def start(self, ids: Tensor) -> Stream:
        """Return the stream before the first block, for a batch of token ids of shape (batch, length)."""
        self._arguments = {}
        with suppress(_LastBlockReachedError):
            logits_of(self._model, ids)
        assert self._first_hidden is not None  # the stack was found by running it, so its first block is called
        return Stream(self._first_hidden, self._arguments)

    def run(self, stream: Stream, blocks: Iterable[int]) -> Stream:
        """Return the stream after the given blocks; those that plain text does not run are skipped."""
        for index in blocks:
            if index not in stream.arguments:
                continue
            output = self._kernels.block(self.block(index), stream.hidden, *stream.arguments_of(index))
            carried = {key: output[slot] for slot, key in self._stack.forms[index].carried}
            stream = Stream(hidden_state_of(output), stream.arguments, carried)
            self.block_passes += 1
        return stream

    def run_all(self, streams: Iterable[Stream], blocks: Sequence[int]) -> Iterator[Stream]:
        """Yield the streams after the given blocks; offloaded blocks are loaded once for all streams."""
        if self._stack.loader is None:
            yield from (self.run(stream, blocks) for stream in streams)
            return
        streams = list(streams)
        for block in blocks:
            streams = [self.run(stream, [block]) for stream in streams]
        yield from streams

    def losses(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Return the losses (batch,) of a final hidden state (batch, length, width), by the criterion."""
        return self._criterion.of_hidden(self, hidden, batch)

    def nll(self, hidden: Tensor, ids: Tensor, targets: Tensor) -> Tensor:
        """Return the negative log-likelihood (batch,), summed over positions in parts that fit the memory."""
        parts = position_slices(targets, vocab_size_of(self._model), self._kernels.max_logits)
        # The hidden state may have another dimension before the batch (Gemma 3n keeps four predictions).
        sums = (self._kernels.nll(self, hidden[..., part, :], ids[:, part], targets[:, part]) for part in parts)
        return reduce(torch.add, sums)

    def kl(self, hidden: Tensor, dense: Tensor, ids: Tensor, targets: Tensor) -> Tensor:
        """Return the divergence (batch,) from the dense model, given its final hidden state; in parts as `nll`."""
        # The logits of both models exist at once.
        parts = position_slices(targets, vocab_size_of(self._model), self._kernels.max_logits // 2)
        sums = (
            self._kernels.kl(self, hidden[..., part, :], dense[..., part, :], ids[:, part], targets[:, part])
            for part in parts
        )
        return reduce(torch.add, sums)

    def logits(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """Return the model's logits for a final hidden state, or for a slice of its positions with their token ids."""
        self._final_hidden = hidden
        try:
            return logits_of(self._model, ids)
        finally:
            self._final_hidden = None


@contextmanager
def open_runner(
    model: PreTrainedModel, stack: DecoderStack, kernels: Kernels = UNCOMPILED, criterion: Criterion = CROSS_ENTROPY
) -> Iterator[BlockRunner]:
    """Yield a runner of a model's blocks, which are back in their places at the end."""
    runner = BlockRunner(model, stack, kernels, criterion)
    with evaluating(model), undoing(runner.put_blocks_back):
        runner.put_stand_ins()
        yield runner
