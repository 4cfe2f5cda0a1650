"""Rows of token ids from data sets and DataLoaders: padding is removed, and packed sequences are split."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..blocks.losses import IGNORED, next_tokens
from ..errors import CalibrationError
from .windows import TokenWindows


@dataclass(frozen=True)
class Batches:
    """Batches of token ids with a name of their origin, for messages and the report."""

    batches: Iterable[Any]  # in the forms that `rows_of_batches` takes; it can be iterated several times
    source: str
    padding: int | None = None  # the padding token, for batches without `attention_mask`


@dataclass(frozen=True)
class Row:
    """One sequence for the model, without padding."""

    ids: Tensor  # (length,)
    # (length,), as in transformers: the label of a position is predicted from the positions before it; `IGNORED` where
    # nothing is to be predicted. None: the data carry no labels.
    labels: Tensor | None = None

    def parts(self, starts: Sequence[int]) -> "Iterator[Row]":
        """Yield the sequences of a packed row, which start at the ascending positions `starts` (the first is 0).

        >>> [part.ids.tolist() for part in Row(torch.tensor([5, 6, 7, 8, 9])).parts([0, 3])]
        [[5, 6, 7], [8, 9]]
        """
        for start, stop in zip(starts, [*starts[1:], len(self.ids)], strict=True):
            yield Row(self.ids[start:stop], None if self.labels is None else self.labels[start:stop])


def token_ids(values: Any, what: str) -> Tensor:
    """Return whole numbers as a tensor on the CPU; `what` begins the error about anything else.

    >>> token_ids([[5, 6]], "The batch")
    tensor([[5, 6]])
    """
    tensor = _tensor(values, what)
    if len(tensor) and (tensor.dtype == torch.bool or tensor.is_floating_point() or tensor.is_complex()):
        kind = str(tensor.dtype).removeprefix("torch.")
        raise CalibrationError(f"{what} holds values of type {kind}, where token ids are expected; give integers.")
    return tensor.long()


def _tensor(values: Any, what: str) -> Tensor:
    remedy = "give a list or a dense tensor of whole numbers"
    try:
        if isinstance(values, str | bytes | bytearray):
            raise TypeError(f"it is of type {type(values).__name__}")
        tensor = torch.as_tensor(values)
        if tensor.is_nested or tensor.is_quantized or tensor.layout != torch.strided or tensor.is_meta:
            raise TypeError("it is sparse, nested, quantised or on the meta device")
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise CalibrationError(f"{what} cannot be read as token ids ({str(error).rstrip('.')}); {remedy}.") from error
    if not tensor.dim():
        raise CalibrationError(f"{what} holds a single number, where a row of token ids is expected; {remedy}.")
    return tensor.cpu()


def rows_of_example(example: Mapping[str, Any], padding: int | None = None, where: str = "A row") -> Iterator[Row]:
    """Yield the sequences of one row: without padding (mask 0), and split where `position_ids` start again.

    >>> packed = {"input_ids": [5, 6, 7, 8, 0], "attention_mask": [1, 1, 1, 1, 0], "position_ids": [0, 1, 0, 1, 2]}
    >>> [row.ids.tolist() for row in rows_of_example(packed)]
    [[5, 6], [7, 8]]
    """
    if example.get("input_ids") is None:
        raise CalibrationError(f"{where} has no input_ids (null); remove it, or give it token ids.")
    row = {
        # A mask may also be of bool or float.
        name: (_tensor if "mask" in name else token_ids)(example[name], f"{where} ({name})")
        for name in _PARTS
        if example.get(name) is not None
    }
    shape = row["input_ids"].shape
    for name, values in row.items():
        if len(shape) != 1 or values.shape != shape:
            raise CalibrationError(
                f"{where} of {tuple(shape)} token ids has {name} of shape {tuple(values.shape)}; give rows of one "
                "dimension, and as many of everything."
            )
    masks = [row.pop(name).bool() for name in _MASKS if name in row]
    if masks and "labels" not in row:
        row["labels"] = row["input_ids"].where(torch.stack(masks).all(dim=0), IGNORED)
    if "attention_mask" in row:
        seen = row.pop("attention_mask").bool()
        row = {name: values[seen] for name, values in row.items()}
    elif padding is not None and row.keys() == {"input_ids", "labels"}:
        # Without a mask, padding is removed only at the ends and where its label is IGNORED, because the padding token
        # may also be a token of the text, such as EOS.
        real = ((row["input_ids"] != padding) | (row["labels"] != IGNORED)).nonzero().flatten().tolist()
        first, last = (real[0], real[-1]) if real else (0, -1)
        row = {name: values[first : last + 1] for name, values in row.items()}
    yield from Row(row["input_ids"], row.get("labels")).parts(_starts(row))


def rows_of_batches(batches: Iterable[Any], padding: int | None = None) -> Iterator[Row]:
    """Yield the sequences of batches: tensors of shape (batch, length), tuples that start with one, or dictionaries.

    >>> batch = {"input_ids": torch.tensor([[5, 6, 0], [7, 8, 9]]), "attention_mask": [[1, 1, 0], [1, 1, 1]]}
    >>> [row.ids.tolist() for row in rows_of_batches([batch])]
    [[5, 6], [7, 8, 9]]
    """
    for place, batch in enumerate(batches):
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
        for name, values in columns.items():
            if isinstance(values, Tensor):
                columns[name] = _tensor(values, f"Batch {place} ({name})")
        sizes = {name: len(values) for name, values in columns.items()}
        if len(set(sizes.values())) > 1:
            raise CalibrationError(f"Batch {place} holds unequal numbers of rows ({sizes}); give as many of each.")
        for number in range(len(columns["input_ids"])):
            row = {name: values[number] for name, values in columns.items()}
            yield from rows_of_example(row, padding, f"Row {number} of batch {place}")


def windows_of_rows(rows: Iterable[Row], loss: str, max_windows: int | None, source: str) -> TokenWindows:
    """Make each row a token window; with `loss="labels"`, rows without a label to predict are left out.

    >>> row = Row(torch.tensor([5, 6, 7]), labels=torch.tensor([-100, -100, 7]))
    >>> windows_of_rows([row], "labels", None, "rows").targets
    (tensor([-100,    7, -100]),)
    """
    if loss == "next_token":
        return TokenWindows.from_rows((row.ids for row in rows), max_windows)
    windows: list[Tensor] = []
    targets: list[Tensor] = []
    for row in rows:
        if row.labels is None:
            raise no_labels(source)
        # The label of a position is the target of the position before it.
        row_targets = next_tokens(row.labels)
        if (row_targets != IGNORED).any():
            windows.append(row.ids)
            targets.append(row_targets)
        if len(windows) == max_windows:  # asked here, so that no further row is read
            break
    if not windows:
        raise CalibrationError(
            f"The labels of {source} name no token that is to be predicted (all are {IGNORED}, or stand first); check "
            "what makes them, choose longer windows if a prompt fills them (window_length), or measure on every "
            'token (loss="next_token").'
        )
    return TokenWindows(tuple(windows), tuple(targets))


class NoLabelsError(CalibrationError):
    """Data without labels where `loss="labels"` needs them."""


def no_labels(source: str) -> NoLabelsError:
    """Return the error for data without labels, which says what to give instead."""
    return NoLabelsError(
        f'{source} carries no labels, on which loss="labels" is measured; give a Dataset or a DataLoader with '
        "input_ids and labels, rows of prompt and completion or of messages, use SLEBPruner.from_trainer, or measure "
        'on every token (loss="next_token").'
    )


_MASKS = ("completion_mask", "assistant_masks")  # of TRL, for labels: 1 where a token counts
_PARTS = ("input_ids", "attention_mask", "labels", "position_ids", *_MASKS)
_NO_TEXT = ("pixel_values", "input_features", "input_values", "inputs_embeds")


def _check_text_only(batch: Any) -> None:
    others = [name for name in batch if name.startswith(_NO_TEXT)]
    if others:
        raise CalibrationError(
            f"The batches hold {others[0]} beside token ids, but blocks are chosen on text alone; calibrate on text "
            "(calibration=)."
        )


def _starts(row: dict[str, Tensor]) -> list[int]:
    """Return the positions at which sequences start: where the position ids do not increase by one."""
    if "position_ids" not in row or not len(row["position_ids"]):
        return [0]
    breaks = (row["position_ids"].diff() != 1).nonzero().flatten() + 1
    return [0, *breaks.tolist()]
