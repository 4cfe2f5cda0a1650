"""Token windows: the pieces of text on which losses are measured."""

import hashlib
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Self

import torch
from torch import Tensor

from ..errors import CalibrationError
from ..losses import IGNORED, next_tokens


@dataclass(frozen=True)
class WindowBatch:
    """Windows of one length, which the model sees in one pass.

    Attributes:
        place: Where they stand among all windows.
        ids: Token ids, of shape (batch, length).
        targets: What each position predicts, of shape (batch, length); `losses.IGNORED` where that is nothing.
    """

    place: slice
    ids: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> "WindowBatch":
        """The batch on a device.

        Args:
            device: The device.

        Returns:
            The batch there.

        Example:
            >>> batch, = TokenWindows.from_stream(torch.arange(12), length=4).batches(3)
            >>> batch.to(torch.device("cpu")).ids.device
            device(type='cpu')
        """
        return WindowBatch(self.place, self.ids.to(device), self.targets.to(device))

    def share(self, number: int, of: int) -> "WindowBatch":
        """A share of the batch, as one of several processes takes it.

        Args:
            number: Which share, from 0.
            of: Number of shares.

        Returns:
            Every so many-th window; possibly none.

        Example:
            >>> batch, = TokenWindows.from_stream(torch.arange(12), length=4).batches(3)
            >>> len(batch.share(0, 2)), len(batch.share(1, 2))
            (2, 1)
        """
        ids, targets = self.ids[number::of], self.targets[number::of]
        return WindowBatch(slice(0, len(ids)), ids, targets)

    def split(self, size: int) -> "list[WindowBatch]":
        """The batch in smaller ones.

        Args:
            size: Windows in each of them, at most.

        Returns:
            The parts, in order.

        Example:
            >>> batch, = TokenWindows.from_stream(torch.arange(12), length=4).batches(3)
            >>> [(part.place.start, part.place.stop) for part in batch.split(2)]
            [(0, 2), (2, 3)]
        """
        parts = zip(self.ids.split(size), self.targets.split(size), strict=True)
        return [
            WindowBatch(slice(start, start + len(ids)), ids, targets)
            for start, (ids, targets) in zip(range(self.place.start, self.place.stop, size), parts, strict=True)
        ]

    def without(self, known: Container[int]) -> "list[WindowBatch]":
        """What is left of the batch where some windows are known.

        Args:
            known: The places of these windows.

        Returns:
            The parts between them, in order; the batch itself where it holds none of them.

        Example:
            >>> batch, = TokenWindows.from_stream(torch.arange(20), length=4).batches(5)
            >>> [(part.place.start, part.place.stop) for part in batch.without({1, 2})]
            [(0, 1), (3, 5)]
        """
        first = self.place.start
        parts = []
        for is_known, group in groupby(range(first, self.place.stop), key=known.__contains__):
            numbers = list(group)
            here = slice(numbers[0] - first, numbers[-1] + 1 - first)
            if not is_known:
                place = slice(numbers[0], numbers[-1] + 1)
                parts.append(WindowBatch(place, self.ids[here], self.targets[here]))
        return parts


@dataclass(frozen=True)
class TokenWindows:
    """Windows of token ids, each of which the model sees on its own.

    Attributes:
        windows: Token ids, one tensor of shape (length,) for each window; every length is at least 2.
        targets: What each position of each window predicts, in the same shapes, `losses.IGNORED` where that is
            nothing, and something in every window; `None` where every position predicts the token that follows.
    """

    windows: tuple[Tensor, ...]
    targets: tuple[Tensor, ...] | None = None

    @classmethod
    def from_stream(cls, ids: Tensor, length: int, max_windows: int | None = None, bos_id: int | None = None) -> Self:
        """Cut one long text into windows of equal length. What is left over at its end is dropped, as published.

        Args:
            ids: Token ids of the text, of shape (tokens,).
            length: Tokens in a window.
            max_windows: Use the first so many windows only.
            bos_id: Token that is put in front of every window, as its first token; `None` puts none.

        Returns:
            The windows.

        Raises:
            CalibrationError: If the text is too short for a single window.

        Example:
            >>> windows = TokenWindows.from_stream(torch.arange(10, 17), length=3, bos_id=1)
            >>> [window.tolist() for window in windows.windows]
            [[1, 10, 11], [1, 12, 13], [1, 14, 15]]
        """
        step = length if bos_id is None else length - 1
        count = len(ids) // step
        if count == 0:
            needed = f"{step} tokens" if bos_id is None else f"{step} tokens (and BOS)"
            raise CalibrationError(
                f"The text has {len(ids)} tokens, but one window takes {needed}; give more text or shorter windows "
                "(window_length)."
            )
        pieces = ids[: count * step].view(count, step)[:max_windows]
        if bos_id is not None:
            pieces = torch.cat([torch.full((len(pieces), 1), bos_id), pieces], dim=1)
        return cls(tuple(pieces))

    @classmethod
    def from_rows(cls, rows: Iterable[Tensor], max_windows: int | None = None) -> Self:
        """Take rows of token ids as they are, one window each. Rows of fewer than 2 tokens predict nothing.

        Args:
            rows: Token ids, each of shape (length,).
            max_windows: Use the first so many rows only.

        Returns:
            The windows.

        Raises:
            CalibrationError: If no row has 2 tokens.

        Example:
            >>> len(TokenWindows.from_rows([torch.tensor([3, 4, 5]), torch.tensor([6])]))
            1
        """
        windows: list[Tensor] = []
        for row in rows:
            if len(windows) == max_windows:
                break
            if len(row) >= 2:
                windows.append(row)
        if not windows:
            raise CalibrationError("The calibration data hold no row of at least 2 tokens; give longer rows.")
        return cls(tuple(windows))

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def num_tokens(self) -> int:
        """Tokens in all windows together."""
        return sum(len(window) for window in self.windows)

    @property
    def num_labels(self) -> int | None:
        """Positions that predict something; `None` where all but the last of each window do."""
        return None if self.targets is None else sum(int((row != IGNORED).sum()) for row in self.targets)

    @property
    def num_counted(self) -> int:
        """Tokens that the losses stand for: their sum, divided by it, is the logarithm of the perplexity.

        A window of n predictions counts n + 1; see `losses.window_losses`.
        """
        labels = self.num_labels
        return self.num_tokens if labels is None else labels + len(self)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over lengths, token ids and labels, by which a run can tell whether it sees the same data again."""
        digest = hashlib.sha256()
        for window in self.windows:
            digest.update(len(window).to_bytes(8, "little"))
            digest.update(window.to(torch.int64).numpy().tobytes())
        for row in self.targets or ():
            digest.update(row.to(torch.int64).numpy().tobytes())
        return digest.hexdigest()

    def select(self, numbers: Sequence[int]) -> Self:
        """Some of the windows.

        Args:
            numbers: Their places, in the order wanted.

        Returns:
            These windows.

        Example:
            >>> TokenWindows.from_stream(torch.arange(12), length=4).select([2, 0]).windows[0].tolist()
            [8, 9, 10, 11]
        """
        targets = None if self.targets is None else tuple(self.targets[number] for number in numbers)
        return type(self)(tuple(self.windows[number] for number in numbers), targets)

    def batches(self, batch_size: int) -> "Iterator[WindowBatch]":
        """The windows in batches. Windows of different lengths never share a batch, so that none needs padding.

        Args:
            batch_size: Windows in a batch, at most.

        Yields:
            The batches, in order.

        Example:
            >>> windows = TokenWindows.from_stream(torch.arange(12), length=4)
            >>> [(batch.place.start, batch.place.stop, tuple(batch.ids.shape)) for batch in windows.batches(2)]
            [(0, 2, (2, 4)), (2, 3, (1, 4))]
        """
        start = 0
        for _, group in groupby(self.windows, key=len):
            ids = torch.stack(list(group))
            place = slice(start, start + len(ids))
            targets = next_tokens(ids) if self.targets is None else torch.stack(self.targets[place])
            yield from WindowBatch(place, ids, targets).split(batch_size)
            start = place.stop

    def check_vocabulary(self, vocab_size: int) -> None:
        """Make sure that a model knows every token.

        Args:
            vocab_size: Size of the model's vocabulary.

        Raises:
            CalibrationError: If a token id lies outside of it.

        Example:
            >>> TokenWindows.from_stream(torch.arange(4), length=4).check_vocabulary(4)
        """
        labels = tuple(row[row != IGNORED] for row in self.targets or ())
        for number, window in enumerate((*self.windows, *labels)):
            outside = window[(window < 0) | (window >= vocab_size)]
            if len(outside):
                raise CalibrationError(
                    f"Token id {outside[0].item()} in window {number % len(self)} lies outside the model's vocabulary "
                    f"of {vocab_size}; use the tokenizer that belongs to the model."
                )
