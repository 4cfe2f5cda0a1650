"""Rows of token ids as data sets and DataLoaders give them: padding taken off, packed sequences taken apart."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import CalibrationError
from ..losses import IGNORED, next_tokens
from .windows import TokenWindows


@dataclass(frozen=True)
class Batches:
    """Batches of token ids, and what there is to say about where they come from.

    Attributes:
        batches: The batches, as `rows_of_batches` takes them; they may be asked for several times.
        source: What they are.
        padding: The token that fills rows up, for batches whose `attention_mask` does not tell.
    """

    batches: Iterable[Any]
    source: str
    padding: int | None = None


@dataclass(frozen=True)
class Row:
    """One sequence, as the model is to see it.

    Attributes:
        ids: Token ids, of shape (length,), without padding.
        labels: The token that is to be predicted at each place, of shape (length,), from what stands before it, as
            transformers counts labels; `IGNORED` where none is. `None` where the data carry no labels.
    """

    ids: Tensor
    labels: Tensor | None = None

    def parts(self, starts: Sequence[int]) -> "Iterator[Row]":
        """The sequences of a row in which several were packed.

        Args:
            starts: Places at which a sequence starts, ascending; the first is 0.

        Yields:
            The sequences.

        Example:
            >>> [part.ids.tolist() for part in Row(torch.tensor([5, 6, 7, 8, 9])).parts([0, 3])]
            [[5, 6, 7], [8, 9]]
        """
        for start, stop in zip(starts, [*starts[1:], len(self.ids)], strict=True):
            yield Row(self.ids[start:stop], None if self.labels is None else self.labels[start:stop])


def rows_of_example(example: Mapping[str, Any], padding: int | None = None) -> Iterator[Row]:
    """The sequences of one row of token ids, with all that may stand beside them.

    Args:
        example: `input_ids`, and possibly `attention_mask` (0 is padding), `labels`, and `position_ids`, which start
            anew where several sequences were packed into the row.
        padding: A token that is padding at both ends of a row with labels, where it is none of them; for rows without
            `attention_mask` and `position_ids`.

    Yields:
        The sequences.

    Raises:
        CalibrationError: If these are not of one shape, (length,).

    Example:
        >>> packed = {"input_ids": [5, 6, 7, 8, 0], "attention_mask": [1, 1, 1, 1, 0], "position_ids": [0, 1, 0, 1, 2]}
        >>> [row.ids.tolist() for row in rows_of_example(packed)]
        [[5, 6], [7, 8]]
    """
    row = {name: torch.as_tensor(example[name]).long().cpu() for name in _PARTS if example.get(name) is not None}
    shape = row["input_ids"].shape
    for name, values in row.items():
        if len(shape) != 1 or values.shape != shape:
            raise CalibrationError(
                f"A row of {tuple(shape)} token ids has {name} of shape {tuple(values.shape)}; give rows of one "
                "dimension, and as many of everything."
            )
    if "attention_mask" in row:
        seen = row.pop("attention_mask").bool()
        row = {name: values[seen] for name, values in row.items()}
    elif padding is not None and row.keys() == {"input_ids", "labels"}:
        real = ((row["input_ids"] != padding) | (row["labels"] != IGNORED)).nonzero().flatten().tolist()
        first, last = (real[0], real[-1]) if real else (0, -1)
        row = {name: values[first : last + 1] for name, values in row.items()}
    yield from Row(row["input_ids"], row.get("labels")).parts(_starts(row))


def rows_of_batches(batches: Iterable[Any], padding: int | None = None) -> Iterator[Row]:
    """The sequences in the batches of a DataLoader.

    Args:
        batches: Tensors of token ids of shape (batch, length), tuples that start with one, or dictionaries of such
            tensors; see `rows_of_example`.
        padding: See `rows_of_example`.

    Yields:
        The sequences.

    Raises:
        CalibrationError: If a batch is none of these, or holds images or sounds as well.

    Example:
        >>> batch = {"input_ids": torch.tensor([[5, 6, 0], [7, 8, 9]]), "attention_mask": [[1, 1, 0], [1, 1, 1]]}
        >>> [row.ids.tolist() for row in rows_of_batches([batch])]
        [[5, 6], [7, 8, 9]]
    """
    for batch in batches:
        if isinstance(batch, Tensor):
            columns: dict[str, Any] = {"input_ids": batch}
        elif hasattr(batch, "keys") and "input_ids" in batch:
            _check_text_only(batch)
            columns = {name: batch[name] for name in _PARTS if name in batch and batch[name] is not None}
        elif isinstance(batch, Sequence) and batch and isinstance(batch[0], Tensor):
            columns = {"input_ids": batch[0]}
        else:
            raise CalibrationError(
                f"The DataLoader gives batches of type {type(batch).__name__} without input_ids; give tensors of "
                "token ids, or dictionaries that hold input_ids."
            )
        for number in range(len(columns["input_ids"])):
            yield from rows_of_example({name: values[number] for name, values in columns.items()}, padding)


def windows_of_rows(rows: Iterable[Row], loss: str, max_windows: int | None, source: str) -> TokenWindows:
    """Make every sequence a window.

    Args:
        rows: The sequences.
        loss: `"next_token"` measures on every token; `"labels"` on those that the labels name.
        max_windows: Use the first so many only; `None` uses all.
        source: What the data are, for the error message.

    Returns:
        The windows. Sequences of which nothing is to be predicted are left out.

    Raises:
        CalibrationError: If labels are missing, or nothing is to be predicted at all.

    Example:
        >>> row = Row(torch.tensor([5, 6, 7]), labels=torch.tensor([-100, -100, 7]))
        >>> windows_of_rows([row], "labels", None, "rows").targets
        (tensor([-100,    7, -100]),)
    """
    if loss == "next_token":
        return TokenWindows.from_rows((row.ids for row in rows), max_windows)
    windows: list[Tensor] = []
    targets: list[Tensor] = []
    for row in rows:
        if len(windows) == max_windows:
            break
        if row.labels is None:
            raise no_labels(source)
        # The label of a place is what the place before it predicts.
        wanted = next_tokens(row.labels)
        if (wanted != IGNORED).any():
            windows.append(row.ids)
            targets.append(wanted)
    if not windows:
        raise CalibrationError(
            f"The labels of {source} name no token that is to be predicted (all are {IGNORED}, or stand first); check "
            'what makes them, or measure on every token (loss="next_token").'
        )
    return TokenWindows(tuple(windows), tuple(targets))


def no_labels(source: str) -> CalibrationError:
    """The error of a recipe that measures on labels, and data that have none.

    Args:
        source: What the data are.

    Returns:
        The error.

    Example:
        >>> str(no_labels("a list of 3 texts"))[:35]
        'a list of 3 texts carries no labels'
    """
    return CalibrationError(
        f'{source} carries no labels, on which loss="labels" is measured; give a Dataset or a DataLoader with '
        'input_ids and labels, use SLEBPruner.from_trainer, or measure on every token (loss="next_token").'
    )


_PARTS = ("input_ids", "attention_mask", "labels", "position_ids")
_NO_TEXT = ("pixel_values", "input_features", "input_values", "inputs_embeds")


def _check_text_only(batch: Any) -> None:
    others = [name for name in batch if name.startswith(_NO_TEXT)]
    if others:
        raise CalibrationError(
            f"The batches hold {others[0]} beside token ids, but blocks are chosen on text alone; calibrate on text "
            "(calibration=)."
        )


def _starts(row: dict[str, Tensor]) -> list[int]:
    """Where sequences start: the position ids do not go on there."""
    if "position_ids" not in row or not len(row["position_ids"]):
        return [0]
    breaks = (row["position_ids"].diff() != 1).nonzero().flatten() + 1
    return [0, *breaks.tolist()]
