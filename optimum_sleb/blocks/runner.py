"""Running chosen decoder blocks on a hidden state, with everything around them left to the model itself."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

from torch import Tensor, nn
from transformers import PreTrainedModel

from ..losses import positions_at_a_time, window_losses
from .forward import logits_of, measuring, vocab_size_of
from .kernels import PLAIN, Kernels
from .stack import DecoderStack
from .standins import Place, StandIn, hidden_state_of


class _LastBlockReachedError(Exception):
    """Ends a forward whose only purpose was to learn what the blocks are called with."""


# What a block is called with besides the hidden state.
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Stream:
    """What flows from block to block.

    Attributes:
        hidden: The hidden state, of shape (batch, length, width).
        arguments: What the model calls each block with on this batch: masks, position embeddings, ...
        carried: What blocks hand to the next beside it (in a few architectures only), by where it is received.
    """

    hidden: Tensor
    arguments: dict[int, Arguments]
    carried: dict[Place, Any] = field(default_factory=dict)

    def arguments_of(self, index: int) -> Arguments:
        """What a block is called with here, besides the hidden state.

        Args:
            index: Index of the block.

        Returns:
            Positional and keyword arguments.

        Example:
            ```python
            args, kwargs = stream.arguments_of(3)
            ```
        """
        args, kwargs = self.arguments[index]
        if self.carried:
            args = tuple(self.carried.get(place, value) for place, value in enumerate(args))
            kwargs = {name: self.carried.get(name, value) for name, value in kwargs.items()}
        return args, kwargs


class BlockRunner:
    """Runs any selection of a model's blocks, one after the other, from any hidden state.

    Nothing of the model is rebuilt by hand. While the runner is open every block has a stand-in in its place:

    - `enter` starts the model's own forward; the stand-ins note the masks, position embeddings and other arguments
      that the model makes for each block, and compute nothing.
    - `run` calls the blocks themselves with these arguments.
    - `losses` and `logits` start the model's forward once more and have the stand-ins hand out the final hidden state,
      so that norm, head, soft-capping and scaling are the model's own. They work position by position, hence on any
      slice.

    Args:
        model: The model. It is put back as it was when the runner is closed.
        stack: Its decoder blocks.
        kernels: How blocks and loss are called.

    Example:
        ```python
        with BlockRunner(model, stack) as runner:
            stream = runner.enter(ids)                    # the entrance of the first block
            stream = runner.run(stream, [0, 1, 2, 5])     # blocks 3 and 4 left out
            losses = runner.losses(stream.hidden, ids, targets)  # (batch,)
        ```
    """

    def __init__(self, model: PreTrainedModel, stack: DecoderStack, kernels: Kernels = PLAIN) -> None:
        self._model = model
        self._stack = stack
        self._kernels = kernels
        self._blocks = list(stack.blocks)
        self._arguments: dict[int, Arguments] = {}
        self._entrance: Tensor | None = None
        self._handed_out: Tensor | None = None
        self._resources = ExitStack()
        self.block_passes = 0

    def __enter__(self) -> Self:
        self._resources.enter_context(measuring(self._model))
        self._resources.enter_context(self._stand_ins_in_place())
        return self

    def __exit__(self, *exception: object) -> None:
        self._resources.close()
        self._arguments = {}
        self._entrance = None

    @contextmanager
    def _stand_ins_in_place(self) -> Iterator[None]:
        try:
            for index, form in self._stack.forms.items():
                self._stack.blocks[index] = StandIn(self._blocks[index], form, partial(self._respond, index))
            yield
        finally:
            for index, block in enumerate(self._blocks):
                self._stack.blocks[index] = block

    def _respond(self, index: int, hidden: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        if self._handed_out is not None:
            return self._handed_out
        if not self._arguments:
            self._entrance = hidden
        self._arguments[index] = (args, kwargs)
        if len(self._arguments) == len(self._stack.forms):
            raise _LastBlockReachedError
        return hidden

    def block(self, index: int) -> nn.Module:
        """A decoder block itself, whatever stands in its place, on the device that computes.

        Args:
            index: Index of the block.

        Returns:
            The block. Where blocks are brought one at a time, it stays there until another is asked for.

        Example:
            ```python
            runner.block(3).mlp.down_proj.weight
            ```
        """
        if self._stack.loader is not None:
            self._stack.loader.bring(index)
        return self._blocks[index]

    def enter(self, ids: Tensor) -> Stream:
        """Start on a new batch of windows.

        Args:
            ids: Token ids, of shape (batch, length).

        Returns:
            The stream at the entrance of the first block.

        Example:
            ```python
            stream = runner.enter(ids)
            ```
        """
        self._arguments = {}
        with suppress(_LastBlockReachedError):
            logits_of(self._model, ids)
        assert self._entrance is not None  # the stack was found by running it, so its first block is called
        return Stream(self._entrance, self._arguments)

    def run(self, stream: Stream, blocks: Iterable[int]) -> Stream:
        """Run blocks on a stream.

        Args:
            stream: The stream; it stays as it is.
            blocks: Indices of the blocks, in the order in which they run. Blocks that plain text does not run are
                passed over.

        Returns:
            The stream after the last of them.

        Example:
            ```python
            stream = runner.run(stream, range(4, 30))
            ```
        """
        for index in blocks:
            if index not in stream.arguments:
                continue
            output = self._kernels.block(self.block(index), stream.hidden, *stream.arguments_of(index))
            carried = {place: output[slot] for slot, place in self._stack.forms[index].carried}
            stream = Stream(hidden_state_of(output), stream.arguments, carried)
            self.block_passes += 1
        return stream

    def run_all(self, streams: Iterable[Stream], blocks: Sequence[int]) -> Iterator[Stream]:
        """Run blocks on several streams, each block on all of them before the next.

        Where blocks are brought to the device one at a time, each comes once.

        Args:
            streams: The streams; they stay as they are.
            blocks: Indices of the blocks, in the order in which they run.

        Yields:
            The streams after the last of them.

        Example:
            ```python
            streams = runner.run_all([runner.enter(batch.ids) for batch in batches], range(30))
            ```
        """
        if self._stack.loader is None:
            yield from (self.run(stream, blocks) for stream in streams)
            return
        streams = list(streams)
        for block in blocks:
            streams = [self.run(stream, [block]) for stream in streams]
        yield from streams

    def losses(self, hidden: Tensor, ids: Tensor, targets: Tensor) -> Tensor:
        """The loss that the model makes of a final hidden state, window by window and in parts that fit the memory.

        Args:
            hidden: Hidden state after the last block, of shape (batch, length, width).
            ids: Token ids of the windows, of shape (batch, length).
            targets: What they predict, of shape (batch, length).

        Returns:
            Losses as `losses.window_losses` defines them, of shape (batch,).

        Example:
            ```python
            losses = runner.losses(runner.run(runner.enter(ids), range(30)).hidden, ids, targets)
            ```
        """

        def nll_between(part: slice) -> Tensor:
            # In front of the batch there can be a dimension of the family's own (Gemma 3n keeps four predictions).
            return self._kernels.nll(self, hidden[..., part, :], ids[:, part], targets[:, part])

        positions = positions_at_a_time(targets, vocab_size_of(self._model), self._kernels.max_logits)
        return window_losses(nll_between, targets, positions)

    def logits(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """The logits that the model makes of a final hidden state.

        Args:
            hidden: Hidden state after the last block, of shape (batch, length, width), or a slice of positions of it.
            ids: The token ids at the same positions, of shape (batch, length).

        Returns:
            Logits in the model's precision, of shape (batch, length, vocabulary).

        Example:
            ```python
            logits = runner.logits(hidden[:, :512], ids[:, :512])
            ```
        """
        self._handed_out = hidden
        try:
            return logits_of(self._model, ids)
        finally:
            self._handed_out = None
