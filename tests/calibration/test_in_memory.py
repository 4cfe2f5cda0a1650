"""Data in memory of every kind, against the same tokenised by hand and cut; and endless ones, read lazily."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

import datasets
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from optimum_sleb import CalibrationError, SLEBConfig
from optimum_sleb.calibration.loaded import LoadedWindows
from optimum_sleb.calibration.sources import load_calibration

from .chatting import chat_tokenizer
from .rows_by_hand import (
    BOS,
    CHATS,
    COUNT,
    EOS,
    IDS,
    KINDS,
    LABELLED,
    LENGTH,
    TEXTS,
    Windows,
    cut_text,
    of_chats,
    of_ids,
    words,
)


def generator_of(rows: list[Any]) -> Callable[[], Iterator[Any]]:
    def generate() -> Iterator[Any]:
        yield from rows

    return generate


DOORS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "Dataset": datasets.Dataset.from_list,
    "stream": lambda rows: datasets.Dataset.from_list(rows).to_iterable_dataset(),
    "numpy's format": lambda rows: datasets.Dataset.from_list(rows).with_format("numpy"),
    "torch's format": lambda rows: datasets.Dataset.from_list(rows).with_format("torch"),
    "stream after map": lambda rows: datasets.IterableDataset.from_generator(generator_of(rows)).map(dict),
    "generator function": generator_of,
    "partial": lambda rows: partial(iter, rows),
    "generator": iter,
}


def load(data: Any, loss: str = "next_token", **values: Any) -> LoadedWindows:
    config = SLEBConfig(sparsity=0.2, window_length=LENGTH, max_windows=COUNT, loss=loss, **values)
    return load_calibration(data, chat_tokenizer(), config)


def assert_windows(loaded: LoadedWindows, expected: Windows) -> None:
    windows = loaded.windows
    assert [window.tolist() for window in windows.windows] == [ids for ids, _ in expected]
    labels = [row for _, row in expected]
    # The label of a position is the target of the position before it.
    targets = None if labels[0] is None else [[*row[1:], -100] for row in labels]
    assert (None if windows.targets is None else [row.tolist() for row in windows.targets]) == targets


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_every_kind(kind: str, door: str) -> None:
    rows, expected = KINDS[kind]
    assert_windows(load(DOORS[door](rows)), expected("next_token"))


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", LABELLED)
def test_labels_of_every_kind(kind: str, door: str) -> None:
    rows, expected = KINDS[kind]
    assert_windows(load(DOORS[door](rows), "labels"), expected("labels"))


BARE: dict[str, tuple[list[Any], Callable[[str], Windows]]] = {
    "strings": (TEXTS, lambda loss: cut_text()),
    "chats": (CHATS, of_chats),
    "token ids": (IDS, of_ids),
    "tensors": ([torch.tensor(ids) for ids in IDS], of_ids),
    "arrays": ([np.array(ids) for ids in IDS], of_ids),
}


@pytest.mark.parametrize("door", ["list", "tuple", "generator function", "partial", "generator"])
@pytest.mark.parametrize("kind", BARE)
def test_items_of_every_kind(kind: str, door: str) -> None:
    items, expected = BARE[kind]
    assert_windows(load(DOORS[door](items)), expected("next_token"))
    if kind == "chats":
        assert_windows(load(DOORS[door](items), "labels"), expected("labels"))


ENDLESS: dict[str, Any] = {
    **{kind: rows[0] for kind, (rows, _) in KINDS.items()},
    **{f"bare {kind}": items[0] for kind, (items, _) in BARE.items()},
}


@pytest.mark.parametrize(
    ("kind", "door"),
    [
        (kind, door)
        for kind in ENDLESS
        for door in ("generator function", "stream", "DataLoader")
        # A stream has rows, and a DataLoader tokens.
        if not (door == "stream" and kind.startswith("bare ")) and (door != "DataLoader" or "ids" in kind)
    ],
)
@pytest.mark.parametrize("separator", [None, "eos"])
@pytest.mark.filterwarnings("ignore:document_separator has no effect")
def test_no_more_is_read_than_the_windows_need(kind: str, door: str, separator: str | None) -> None:
    taken = 0

    def endless() -> Iterator[Any]:
        nonlocal taken
        while True:
            taken += 1
            yield ENDLESS[kind]

    data: Any = endless
    if door == "stream":
        data = datasets.IterableDataset.from_generator(endless)
    elif door == "DataLoader":

        class Stream(torch.utils.data.IterableDataset):
            def __iter__(self) -> Iterator[Any]:
                return endless()

        data = DataLoader(Stream(), batch_size=2, collate_fn=collated)
    assert len(load(data, document_separator=separator).windows) == COUNT
    assert taken <= (2000 if "text" in kind or "strings" in kind else COUNT + 2)


def collated(rows: list[Any]) -> dict[str, Any]:
    rows = [row if isinstance(row, dict) else {"input_ids": row} for row in rows]
    return {name: [row[name] for row in rows] for name in rows[0]}


@pytest.mark.parametrize(
    ("data", "source", "columns"),
    [
        (TEXTS, "a list of 20 texts", None),
        (CHATS, "a list of 8 chats", "messages, by the tokenizer's chat template"),
        (KINDS["text"][0], "a list of 20 rows", "text"),
        (KINDS["prompt and completion"][0], "a list of 8 rows", "prompt and completion"),
        (IDS, "token ids (list)", None),
        (datasets.Dataset.from_list(KINDS["text"][0]), "a Dataset", "text"),
        (datasets.Dataset.from_list(KINDS["input_ids"][0]), "a tokenised Dataset", "input_ids"),
        (generator_of(TEXTS), "a generator of texts", None),
        (generator_of(IDS), "a generator of rows of token ids", "input_ids"),
    ],
)
def test_what_the_report_says(data: Any, source: str, columns: str | None) -> None:
    record = load(data).record()
    assert (record.source, record.columns) == (source, columns)


class TestColumns:
    """Which of several columns are read."""

    ROW: ClassVar[dict[str, Any]] = {
        "input_ids": IDS[0],
        "prompt": "w3",
        "completion": " w4",
        "messages": CHATS[0],
        "text": TEXTS[1],
        "id": 7,
    }

    @pytest.mark.parametrize(
        ("without", "columns"),
        [
            ((), "input_ids (not completion, messages, text)"),
            (("input_ids",), "prompt and completion (not messages, text)"),
            (("input_ids", "completion"), "messages, by the tokenizer's chat template (not text)"),
        ],
    )
    def test_the_first_kind_wins_and_it_is_said(self, without: tuple[str, ...], columns: str) -> None:
        row = {name: value for name, value in self.ROW.items() if name not in without}
        with pytest.warns(UserWarning, match="the list holds .*text as well, but .* is used") as told:
            loaded = load([row] * COUNT)
        assert loaded.columns == columns
        assert len(told) == 1

    def test_a_column_that_is_chosen_wins(self) -> None:
        rows = [{**self.ROW, "content": text} for text in TEXTS]
        loaded = load(rows, text_column="content")
        assert_windows(loaded, cut_text())
        assert loaded.columns == "content"

    @pytest.mark.parametrize("column", ["dialogue", "chosen", "messages"])
    def test_it_may_hold_chats(self, column: str) -> None:
        rows = [{**self.ROW, column: messages} for messages in CHATS]
        loaded = load(rows, "labels", text_column=column)
        assert_windows(loaded, of_chats("labels"))
        assert loaded.columns == f"{column}, by the tokenizer's chat template, assistant turns"

    @pytest.mark.parametrize("column", ["completion", "prompt", "input_ids", "conversations"])
    def test_it_may_hold_text_whatever_its_name(self, column: str) -> None:
        assert_windows(load([{column: text} for text in TEXTS], text_column=column), cut_text())

    @pytest.mark.parametrize("others", [{"input_ids": None}, {"messages": 4}, {"messages": []}, {"prompt": "w3"}])
    def test_columns_that_hold_nothing_do_not_count(self, others: dict[str, Any]) -> None:
        assert_windows(load([{**others, "text": text} for text in TEXTS]), cut_text())


class TestSeparators:
    def test_eos_between_documents(self) -> None:
        ids = [token for text in TEXTS for token in (*words(text), EOS)][:-1]
        cut = [ids[start : start + LENGTH - 1] for start in range(0, COUNT * (LENGTH - 1), LENGTH - 1)]
        loaded = load(TEXTS, document_separator="eos")
        assert_windows(loaded, [([BOS, *window], None) for window in cut])
        assert loaded.bos_per_window
        whole = [BOS, *ids]
        cut = [whole[start : start + LENGTH] for start in range(0, COUNT * LENGTH, LENGTH)]
        loaded = load(TEXTS, document_separator="eos", bos_per_window=False)
        assert_windows(loaded, [(window, None) for window in cut])
        assert not loaded.bos_per_window

    def test_all_windows(self) -> None:
        config = SLEBConfig(sparsity=0.2, window_length=LENGTH, max_windows=None, document_separator="eos")
        ids = [token for text in TEXTS for token in (*words(text), EOS)][:-1]
        assert len(load_calibration(TEXTS, chat_tokenizer(), config).windows) == len(ids) // (LENGTH - 1)

    def test_documents_that_end_with_it_get_no_second_one(self) -> None:
        ended = [f"{text} </s>" for text in TEXTS]
        assert_windows(
            load(ended, document_separator="eos"),
            [(window.tolist(), None) for window in load(TEXTS, document_separator="eos").windows.windows],
        )

    def test_a_text(self) -> None:
        ids = words(" w50 ".join(TEXTS))
        cut = [ids[start : start + LENGTH - 1] for start in range(0, COUNT * (LENGTH - 1), LENGTH - 1)]
        assert_windows(load(TEXTS, document_separator=" w50 "), [([BOS, *window], None) for window in cut])

    def test_rows_of_ones_own_have_none(self) -> None:
        with pytest.warns(UserWarning, match=r"has no effect on the list, whose rows \(messages\) are windows"):
            assert_windows(load(CHATS, document_separator="eos"), of_chats("next_token"))

    def test_a_tokenizer_without_eos(self) -> None:
        tokenizer = chat_tokenizer()
        tokenizer.eos_token = None
        config = SLEBConfig(sparsity=0.2, window_length=LENGTH, document_separator="eos")
        with pytest.raises(CalibrationError, match="has no EOS token to join documents by; set tokenizer.eos_token"):
            load_calibration(TEXTS, tokenizer, config)


class TestRefusals:
    def test_a_generator_that_was_read(self) -> None:
        rows = iter(TEXTS)
        list(rows)
        with pytest.raises(CalibrationError, match="gives no rows, or was read before; give the function"):
            load(rows)

    @pytest.mark.parametrize("function", [len, lambda: 5, lambda: "w3", lambda: {"text": "w3"}, lambda: 1 / 0, dict])
    def test_functions_that_give_no_rows(self, function: Any) -> None:
        with pytest.raises(CalibrationError, match="gives no rows|not supported"):
            load(function)

    def test_a_generator_that_fails(self) -> None:
        def failing() -> Iterator[str]:
            yield "w3"
            raise OSError("the disk is gone")

        with pytest.raises(CalibrationError, match=r"Row 1 of the generator cannot be read \(OSError: the disk is"):
            load(failing)

    @pytest.mark.parametrize("make", [datasets.DatasetDict, datasets.IterableDatasetDict])
    def test_several_splits(self, make: Any) -> None:
        with pytest.raises(CalibrationError, match=r"several splits \(train\); pass one of them"):
            load(make(train=datasets.Dataset.from_dict({"text": ["w3"]})))
