"""Rows as collators make them: padding, labels and packing, against the sequences that went in."""

import datasets
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import DataCollatorForLanguageModeling, DataCollatorWithFlattening

from optimum_sleb import CalibrationError, SLEBConfig
from optimum_sleb.calibration.rows import Row, rows_of_batches, rows_of_example, windows_of_rows
from optimum_sleb.calibration.sources import load_calibration

from ..conftest import make_text

LABELS = SLEBConfig(sparsity=0.2, loss="labels")
SEQUENCES = [[5, 6, 7], [8, 9], [10, 11, 12, 13]]
COMPLETIONS = [[-100, 6, 7], [-100, 9], [-100, -100, 12, 13]]


def ids_of(rows) -> list[list[int]]:
    return [row.ids.tolist() for row in rows]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_taken_off(side: str, tokenizer) -> None:
    tokenizer.padding_side = side
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False, pad_to_multiple_of=8)
    batch = collator([{"input_ids": ids} for ids in SEQUENCES])
    assert batch["input_ids"].shape == (3, 8)
    rows = list(rows_of_batches([batch]))
    assert ids_of(rows) == SEQUENCES
    assert [row.labels.tolist() for row in rows] == SEQUENCES


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_that_no_mask_tells(side: str, tokenizer) -> None:
    """It has labels of -100, at the ends; a token of the same number that is learned is none."""
    tokenizer.padding_side = side
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False, pad_to_multiple_of=8)
    batch = collator([{"input_ids": ids} for ids in SEQUENCES])
    del batch["attention_mask"]
    assert ids_of(rows_of_batches([batch], padding=0)) == SEQUENCES
    assert len(next(rows_of_batches([batch])).ids) == 8  # nobody said which token it is
    learned = {"input_ids": [0, 5, 0, 6, 0, 0], "labels": [-100, -100, -100, 6, 0, -100]}
    assert ids_of(rows_of_example(learned, padding=0)) == [[5, 0, 6, 0]]
    assert ids_of(rows_of_example({"input_ids": [0, 0], "labels": [-100, -100]}, padding=0)) == [[]]


def test_packed_sequences_are_taken_apart() -> None:
    features = [{"input_ids": ids, "labels": labels} for ids, labels in zip(SEQUENCES, COMPLETIONS, strict=True)]
    batch = DataCollatorWithFlattening()(features)
    assert batch["input_ids"].shape == (1, 9)
    rows = list(rows_of_batches([batch]))
    assert ids_of(rows) == SEQUENCES
    assert [row.labels.tolist() for row in rows] == COMPLETIONS


def test_trl_packs_and_pads() -> None:
    sft = pytest.importorskip("trl.trainer.sft_trainer")
    features = [{"input_ids": ids, "labels": labels} for ids, labels in zip(SEQUENCES, COMPLETIONS, strict=True)]
    for padding_free in (False, True):
        collator = sft.DataCollatorForLanguageModeling(pad_token_id=0, padding_free=padding_free, pad_to_multiple_of=8)
        windows = windows_of_rows(rows_of_batches([collator(features)]), "labels", None, "rows")
        assert [window.tolist() for window in windows.windows] == SEQUENCES
        assert windows.num_labels == 5


def test_position_ids_without_a_break_are_one_sequence() -> None:
    assert ids_of(rows_of_example({"input_ids": [5, 6, 7], "position_ids": [4, 5, 6]})) == [[5, 6, 7]]


def test_a_label_is_what_the_place_before_it_predicts() -> None:
    rows = [Row(torch.tensor(ids), torch.tensor(labels)) for ids, labels in zip(SEQUENCES, COMPLETIONS, strict=True)]
    windows = windows_of_rows(rows, "labels", None, "rows")
    assert [row.tolist() for row in windows.targets] == [[6, 7, -100], [9, -100], [-100, 12, 13, -100]]
    assert (windows.num_labels, windows.num_tokens, windows.num_counted) == (5, 9, 8)


def test_sequences_without_a_label_are_left_out_and_do_not_count() -> None:
    nothing = Row(torch.tensor([5, 6]), torch.tensor([-100, -100]))
    first_only = Row(torch.tensor([5, 6]), torch.tensor([5, -100]))
    labelled = Row(torch.tensor([7, 8]), torch.tensor([-100, 8]))
    windows = windows_of_rows([nothing, first_only, labelled, labelled, labelled], "labels", 2, "rows")
    assert [window.tolist() for window in windows.windows] == [[7, 8], [7, 8]]
    with pytest.raises(CalibrationError, match="labels of rows name no token that is to be predicted"):
        windows_of_rows([nothing, first_only], "labels", None, "rows")


def test_the_default_measures_on_every_token() -> None:
    rows = [Row(torch.tensor([5, 6, 7]), torch.tensor([-100, -100, 7]))]
    assert windows_of_rows(rows, "next_token", None, "rows").targets is None


@pytest.mark.parametrize("streaming", [False, True])
def test_a_tokenised_dataset_with_labels(streaming: bool) -> None:
    data = datasets.Dataset.from_dict({"input_ids": SEQUENCES, "labels": COMPLETIONS})
    loaded = load_calibration(data.to_iterable_dataset() if streaming else data, None, LABELS)
    assert loaded.record().num_labels == 5
    assert loaded.record().num_counted == 8


def test_labels_survive_selection_batches_and_the_fingerprint() -> None:
    data = datasets.Dataset.from_dict({"input_ids": SEQUENCES, "labels": COMPLETIONS})
    windows = load_calibration(data, None, LABELS).windows
    (batch,) = windows.select([2]).batches(4)
    assert batch.targets.tolist() == [[-100, 12, 13, -100]]
    assert [batch.targets.tolist() for batch in windows.batches(1)] == [[row.tolist()] for row in windows.targets]
    plain = load_calibration(data, None, SLEBConfig(sparsity=0.2)).windows
    assert windows.fingerprint != plain.fingerprint
    other = [*COMPLETIONS[:2], [-100, 11, 12, 13]]
    again = datasets.Dataset.from_dict({"input_ids": SEQUENCES, "labels": other})
    assert windows.fingerprint != load_calibration(again, None, LABELS).windows.fingerprint


def test_labels_outside_the_vocabulary() -> None:
    data = datasets.Dataset.from_dict({"input_ids": [[5, 6], [7, 8]], "labels": [[-100, 6], [-100, 99]]})
    with pytest.raises(CalibrationError, match="Token id 99 in window 1 lies outside"):
        load_calibration(data, None, LABELS).windows.check_vocabulary(64)


@pytest.mark.parametrize(
    "data",
    [
        [make_text(40)],
        torch.arange(3, 43),
        [[5, 6, 7]],
        datasets.Dataset.from_dict({"text": [make_text(40)]}),
        datasets.Dataset.from_dict({"input_ids": SEQUENCES}),
        DataLoader(torch.arange(12).view(3, 4), batch_size=2),
    ],
    ids=["text", "stream", "rows", "dataset of text", "dataset without labels", "loader"],
)
def test_data_without_labels(data, tokenizer) -> None:
    with pytest.raises(CalibrationError, match='carries no labels, on which loss="labels" is measured; give a Data'):
        load_calibration(data, tokenizer, LABELS)


def test_rows_of_two_dimensions_or_of_unequal_length() -> None:
    with pytest.raises(CalibrationError, match=r"A row of \(3,\) token ids has labels of shape \(2,\)"):
        list(rows_of_example({"input_ids": [5, 6, 7], "labels": [5, 6]}))
    mask = torch.ones(1, 1, 3, 3)
    with pytest.raises(CalibrationError, match=r"has attention_mask of shape \(1, 3, 3\)"):
        list(rows_of_batches([{"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": mask}]))
