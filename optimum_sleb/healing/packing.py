"""Several sequences in one row, told apart by their positions; or rows padded to one length."""

from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel

from ..blocks.forward import evaluating, logits_of
from ..blocks.losses import IGNORED
from ..blocks.stack import probe_ids
from .needs import check_installed


def packed(rows: Dataset, length: int) -> Dataset:
    """Return rows in which as many sequences stand as fit, best fit first, by TRL; `seq_lengths` tells them apart."""
    check_installed("trl", "Short rows are packed (packing=True)")
    from trl import pack_dataset

    return pack_dataset(rows, seq_length=length, strategy="bfd")


@torch.no_grad()
def can_be_packed(model: PreTrainedModel) -> bool:
    """Tell whether a model computes sequences in one row, told apart by position ids, as it does each alone.
    Models differ in that: it is tried, once, on two rows, because flash attention tells those of one row apart."""
    ids = probe_ids(model).expand(2, -1)
    parts = [ids[:, :7], ids[:, 7:]]
    positions = torch.cat([torch.arange(part.shape[1], device=ids.device) for part in parts]).expand(2, -1)
    with evaluating(model):
        try:
            together = logits_of(model, ids, position_ids=positions)
        except TypeError:  # it takes no position ids
            return False
        alone = [logits_of(model, part) for part in parts]
    expected = torch.cat(alone, dim=1).float()
    # Other masks take other kernels, and in half precision those round differently.
    tolerance = 1e-3 if model.dtype == torch.float32 else 3e-2
    return bool((together.float() - expected).norm() <= tolerance * expected.norm())


def batch_of(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Return rows as a batch: tensors of (batch, length) of the longest row, padded on the right, and as `rows` the
    numbers of the rows, where the data set has them."""
    # Any token does for padding: no other sees it, and its label is ignored. A model's own may be none of its tokens.
    ids = _padded(rows, "input_ids", 0)
    batch = {"input_ids": ids, "labels": _padded(rows, "labels", IGNORED)}
    if "seq_lengths" in rows[0]:
        batch["position_ids"] = torch.stack([_positions(row["seq_lengths"], ids.shape[1]) for row in rows])
    elif any(len(row["input_ids"]) < ids.shape[1] for row in rows):
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        batch["attention_mask"] = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    if "row" in rows[0]:
        batch["rows"] = torch.tensor([row["row"] for row in rows])
    return batch


def _padded(rows: list[dict[str, Any]], name: str, value: int) -> Tensor:
    tensors = [torch.as_tensor(row[name]) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)


def _positions(lengths: list[int], total: int) -> Tensor:
    """Return position ids of shape (total,), which begin anew with each sequence; padding is one more sequence."""
    rest = total - sum(lengths)
    return torch.cat([torch.arange(length) for length in (*lengths, *([rest] if rest else []))])
