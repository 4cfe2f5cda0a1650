"""Token windows: the pieces of text on which losses are measured."""

import hashlib
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Self

import torch
from torch import Tensor

from ..blocks.losses import IGNORED, next_tokens
from ..errors import CalibrationError


@dataclass(frozen=True)
class WindowBatch:
    """Token windows of one length, which the model computes in one forward pass."""

    span: slice  # positions of these windows among all windows
    ids: Tensor  # (batch, length)
    targets: Tensor  # (batch, length): the token that each position predicts, or `losses.IGNORED`

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> "WindowBatch":
        """Return the batch on a device."""
        return WindowBatch(self.span, self.ids.to(device), self.targets.to(device))

    def share(self, number: int, of: int) -> "WindowBatch":
        """Return every `of`-th window from window `number` on: the share of one of `of` processes, possibly empty."""
        ids, targets = self.ids[number::of], self.targets[number::of]
        return WindowBatch(slice(0, len(ids)), ids, targets)

    def split(self, size: int) -> "list[WindowBatch]":
        """Split the batch, in order, into batches of at most `size` windows."""
        parts = zip(self.ids.split(size), self.targets.split(size), strict=True)
        return [
            WindowBatch(slice(start, start + len(ids)), ids, targets)
            for start, (ids, targets) in zip(range(self.span.start, self.span.stop, size), parts, strict=True)
        ]

    def without(self, known: Container[int]) -> "list[WindowBatch]":
        """Return the batches that are left, in order, without the windows at the places `known`.

        >>> batch, = TokenWindows.from_stream(torch.arange(20), length=4).batches(5)
        >>> [(part.span.start, part.span.stop) for part in batch.without({1, 2})]
        [(0, 1), (3, 5)]
        """
        first = self.span.start
        parts = []
        for is_known, group in groupby(range(first, self.span.stop), key=known.__contains__):
            numbers = list(group)
            rows = slice(numbers[0] - first, numbers[-1] + 1 - first)
            if not is_known:
                span = slice(numbers[0], numbers[-1] + 1)
                parts.append(WindowBatch(span, self.ids[rows], self.targets[rows]))
        return parts


@dataclass(frozen=True)
class TokenWindows:
    """Windows of token ids, each of which the model computes independently."""

    windows: tuple[Tensor, ...]  # one tensor of shape (length,) per window; every length is at least 2
    # In the same shapes: the token that each position predicts, or `losses.IGNORED`; every window has at least one.
    # None: every position predicts the next token.
    targets: tuple[Tensor, ...] | None = None

    @classmethod
    def from_stream(cls, ids: Tensor, length: int, max_windows: int | None = None, bos_id: int | None = None) -> Self:
        """Cut token ids of shape (tokens,) into windows of equal length; a rest at the end is dropped, as published.

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
        """Make each row of token ids, of shape (length,), a window; rows of fewer than 2 tokens are left out.

        >>> len(TokenWindows.from_rows([torch.tensor([3, 4, 5]), torch.tensor([6])]))
        1
        """
        windows: list[Tensor] = []
        for row in rows:
            if len(row) >= 2:
                windows.append(row)
            if len(windows) == max_windows:  # asked here, so that no further row is read
                break
        if not windows:
            raise CalibrationError("The calibration data hold no row of at least 2 tokens; give longer rows.")
        return cls(tuple(windows))

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def lengths(self) -> list[int]:
        """Return the number of tokens of each window."""
        return [len(window) for window in self.windows]

    @property
    def num_tokens(self) -> int:
        """Return the number of tokens in all windows."""
        return sum(self.lengths)

    @property
    def num_labels(self) -> int | None:
        """Return the number of positions with a target; `None` where all but the last of each window have one."""
        return None if self.targets is None else sum(int((row != IGNORED).sum()) for row in self.targets)

    @property
    def num_counted(self) -> int:
        """Return the number by which the sum of the losses is divided to get the logarithm of the perplexity.
        A window of n predictions counts n + 1; see `blocks.losses.window_losses`.
        """
        labels = self.num_labels
        return self.num_tokens if labels is None else labels + len(self)

    @property
    def fingerprint(self) -> str:
        """Return SHA-256 over lengths, token ids and targets; it must be equal when a run is resumed."""
        digest = hashlib.sha256()
        for window in self.windows:
            digest.update(len(window).to_bytes(8, "little"))
            digest.update(window.to(torch.int64).numpy().tobytes())
        for row in self.targets or ():
            digest.update(row.to(torch.int64).numpy().tobytes())
        return digest.hexdigest()

    def select(self, numbers: Sequence[int]) -> Self:
        """Return the windows at the places `numbers`, in that order."""
        targets = None if self.targets is None else tuple(self.targets[number] for number in numbers)
        return type(self)(tuple(self.windows[number] for number in numbers), targets)

    def batches(self, batch_size: int) -> "Iterator[WindowBatch]":
        """Yield batches of at most `batch_size` windows, in order. Lengths are never mixed, so no padding is needed.

        >>> windows = TokenWindows.from_stream(torch.arange(12), length=4)
        >>> [(batch.span.start, batch.span.stop, tuple(batch.ids.shape)) for batch in windows.batches(2)]
        [(0, 2, (2, 4)), (2, 3, (1, 4))]
        """
        start = 0
        for _, group in groupby(self.windows, key=len):
            ids = torch.stack(list(group))
            span = slice(start, start + len(ids))
            targets = next_tokens(ids) if self.targets is None else torch.stack(self.targets[span])
            yield from WindowBatch(span, ids, targets).split(batch_size)
            start = span.stop

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raise `CalibrationError` if a token id lies outside the model's vocabulary."""
        labels = tuple(row[row != IGNORED] for row in self.targets or ())
        for number, window in enumerate((*self.windows, *labels)):
            outside = window[(window < 0) | (window >= vocab_size)]
            if len(outside):
                raise CalibrationError(
                    f"Token id {outside[0].item()} in window {number % len(self)} lies outside the model's vocabulary "
                    f"of {vocab_size}; use the tokenizer that belongs to the model."
                )
