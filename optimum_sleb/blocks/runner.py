"""Running chosen decoder blocks on a hidden state, with everything around them left to the model itself."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

from torch import Tensor
from transformers import PreTrainedModel

from .forward import logits_of, measuring
from .kernels import PLAIN, Kernels
from .stack import DecoderStack
from .standins import Place, StandIn, hidden_state_of


class _LastBlockReachedError(Exception):
    """Ends a forward whose only purpose was to learn what the blocks are called with."""


@dataclass(frozen=True)
class Stream:
    """What flows from block to block.

    Attributes:
        hidden: The hidden state, of shape (batch, length, width).
        carried: What blocks hand to the next beside it (in a few architectures only), by where it is received.
    """

    hidden: Tensor
    carried: dict[Place, Any] = field(default_factory=dict)


class BlockRunner:
    """Runs any selection of a model's blocks, one after the other, from any hidden state.

    Nothing of the model is rebuilt by hand. While the runner is open every block has a stand-in in its place:

    - `enter` starts the model's own forward; the stand-ins note the masks, position embeddings and other arguments
      that the model makes for each block, and compute nothing.
    - `run` calls the blocks themselves with these arguments.
    - `nll` and `logits` start the model's forward once more and have the stand-ins hand out the final hidden state,
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
            nll = runner.nll(stream.hidden, ids, targets) # (batch,)
        ```
    """

    def __init__(self, model: PreTrainedModel, stack: DecoderStack, kernels: Kernels = PLAIN) -> None:
        self._model = model
        self._stack = stack
        self._kernels = kernels
        self._blocks = list(stack.blocks)
        self._arguments: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}
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
        self._arguments.clear()
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
        self._arguments.clear()
        with suppress(_LastBlockReachedError):
            logits_of(self._model, ids)
        assert self._entrance is not None  # the stack was found by running it, so its first block is called
        return Stream(self._entrance)

    def run(self, stream: Stream, blocks: Iterable[int]) -> Stream:
        """Run blocks on a stream of the batch that was entered last.

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
            if index not in self._arguments:
                continue
            args, kwargs = self._arguments[index]
            if stream.carried:
                args = tuple(stream.carried.get(place, value) for place, value in enumerate(args))
                kwargs = {name: stream.carried.get(name, value) for name, value in kwargs.items()}
            output = self._kernels.block(self._blocks[index], stream.hidden, args, kwargs)
            carried = {place: output[slot] for slot, place in self._stack.forms[index].carried}
            stream = Stream(hidden_state_of(output), carried)
            self.block_passes += 1
        return stream

    def nll(self, hidden: Tensor, ids: Tensor, targets: Tensor) -> Tensor:
        """The loss that the model makes of a final hidden state.

        Args:
            hidden: Hidden state after the last block, of shape (batch, length, width), or a slice of positions of it.
            ids: The token ids at the same positions, of shape (batch, length).
            targets: What they predict, of shape (batch, length).

        Returns:
            Sums over positions, as `losses.nll_sums` makes them, of shape (batch,).

        Example:
            ```python
            nll = runner.nll(hidden[:, :512], ids[:, :512], targets[:, :512])
            ```
        """
        return self._kernels.nll(self, hidden, ids, targets)

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
