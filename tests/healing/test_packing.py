"""Packed rows compute what each sequence alone computes, where the model says so; padded ones always."""

import pytest
import torch
from datasets import Dataset

from optimum_sleb.blocks import forward
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.healing import packing
from optimum_sleb.healing.data import rows_of
from optimum_sleb.healing.packing import batch_of, can_be_packed, packed

from ..families import FAMILIES, tiny_model

LENGTHS = (7, 3, 5, 9, 4)


@pytest.fixture
def rows() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    windows = tuple(torch.randint(3, 64, (length,), generator=generator) for length in LENGTHS)
    return rows_of(TokenWindows(windows))


@torch.no_grad()
def loss_sum(model, rows: Dataset) -> torch.Tensor:
    batch = batch_of([rows[number] for number in range(len(rows))])
    counted = (batch["labels"][:, 1:] != -100).sum()
    assert counted == sum(LENGTHS) - len(LENGTHS)
    return model(**batch, use_cache=False).loss * counted


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_that_of_each_alone(family: str, rows: Dataset, one_thread) -> None:
    model = tiny_model(family)
    alone = [loss_sum_of_one(model, rows[number]) for number in range(len(rows))]
    assert torch.allclose(loss_sum(model, rows), sum(alone), rtol=1e-4)
    if can_be_packed(model):
        together = packed(rows, 12)
        assert len(together) < len(rows)
        assert torch.allclose(loss_sum(model, together), sum(alone), rtol=1e-4)


def test_which_can(one_thread) -> None:
    assert can_be_packed(tiny_model("llama"))
    assert not can_be_packed(tiny_model("bloom"))  # its biases know no positions


def test_sequences_that_only_a_single_row_tells_apart(monkeypatch: pytest.MonkeyPatch, one_thread) -> None:
    """As with flash attention, which takes a batch of several rows for one sequence each."""

    def logits_of(model, ids, **more):
        return forward.logits_of(model, ids, **(more if len(ids) == 1 else {}))

    monkeypatch.setattr(packing, "logits_of", logits_of)
    assert not can_be_packed(tiny_model("llama"))


@torch.no_grad()
def loss_sum_of_one(model, row) -> torch.Tensor:
    ids, labels = (torch.tensor([row[name]]) for name in ("input_ids", "labels"))
    return model(input_ids=ids, labels=labels, use_cache=False).loss * (ids.shape[1] - 1)
