"""Every source of calibration data, against the token ids that it must give."""

import json
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from optimum_sleb import CalibrationError, SLEBConfig
from optimum_sleb.calibration.sources import load_calibration, load_evaluation

from ..conftest import make_text

CONFIG = SLEBConfig(sparsity=0.2, window_length=10)


def ids_of(data, tokenizer=None, config: SLEBConfig = CONFIG) -> list[list[int]]:
    return [window.tolist() for window in load_calibration(data, tokenizer, config).windows.windows]


def cut(numbers: list[int], length: int = 10) -> list[list[int]]:
    return [numbers[start : start + length] for start in range(0, len(numbers) - length + 1, length)]


def words(text: str) -> list[int]:
    return [int(word[1:]) for word in text.split()]


class TestText:
    def test_list_of_strings_is_one_text(self, tokenizer) -> None:
        texts = [make_text(7, seed=1), make_text(16, seed=2)]
        assert ids_of(texts, tokenizer) == cut(words(" ".join(texts)))

    def test_text_file(self, text_file: Path, text: str, tokenizer) -> None:
        config = SLEBConfig(sparsity=0.2, window_length=10, dataset=str(text_file), max_windows=3)
        loaded = load_calibration(None, tokenizer, config)
        assert [window.tolist() for window in loaded.windows.windows] == cut(words(text))[:3]
        assert loaded.source == str(text_file)

    def test_a_separator_that_a_text_file_has_no_use_for(self, text_file: Path, text: str, tokenizer) -> None:
        config = replace(CONFIG, dataset=str(text_file), document_separator="eos")
        with pytest.warns(UserWarning, match="document_separator has no effect on .*: text files have no rows"):
            assert ids_of(None, tokenizer, config) == cut(words(text))

    def test_a_path_instead_of_the_recipes_own(self, text_file: Path, text: str, tokenizer) -> None:
        assert ids_of(text_file, tokenizer) == ids_of(str(text_file), tokenizer) == cut(words(text))

    @pytest.mark.parametrize("kind", ["jsonl", "parquet", "jsonl.gz"])
    def test_documents_of_a_file(self, kind: str, tmp_path: Path, tokenizer) -> None:
        rows = datasets.Dataset.from_dict({"content": [make_text(9, seed=3), make_text(14, seed=4)], "id": [1, 2]})
        path = tmp_path / f"data.{kind}"
        rows.to_parquet(path) if kind == "parquet" else rows.to_json(path, compression="infer")
        config = SLEBConfig(sparsity=0.2, window_length=10, dataset=str(path), text_column="content")
        assert ids_of(None, tokenizer, config) == cut(words(" ".join(rows["content"])))

    @pytest.mark.parametrize("streaming", [False, True])
    def test_dataset_with_text(self, streaming: bool, tokenizer) -> None:
        rows = datasets.Dataset.from_dict({"text": [make_text(9, seed=3), make_text(14, seed=4)]})
        data = rows.to_iterable_dataset() if streaming else rows
        assert ids_of(data, tokenizer) == cut(words(" ".join(rows["text"])))


class TestBos:
    def test_every_window_starts_with_one(self, bos_tokenizer) -> None:
        text = make_text(40)
        expected = [[1, *window] for window in cut(words(text), 9)]
        loaded = load_calibration([text], bos_tokenizer, CONFIG)
        assert [window.tolist() for window in loaded.windows.windows] == expected
        assert loaded.bos_per_window

    def test_as_published_only_the_text_starts_with_one(self, bos_tokenizer) -> None:
        text = make_text(40)
        config = SLEBConfig(sparsity=0.2, window_length=10, bos_per_window=False)
        loaded = load_calibration([text], bos_tokenizer, config)
        assert [window.tolist() for window in loaded.windows.windows] == cut([1, *words(text)])
        assert not loaded.bos_per_window

    def test_a_tokenizer_that_puts_none_is_left_alone(self, tokenizer) -> None:
        assert tokenizer.bos_token_id is not None
        assert not load_calibration([make_text(40)], tokenizer, CONFIG).bos_per_window


class TestTokenIds:
    @pytest.mark.parametrize("make", [torch.tensor, list, np.array], ids=["tensor", "list", "array"])
    def test_one_row_is_a_stream(self, make) -> None:
        assert ids_of(make(list(range(25)))) == cut(list(range(25)))

    @pytest.mark.parametrize("make", [torch.tensor, list, np.array], ids=["tensor", "list", "array"])
    def test_rows_are_windows(self, make) -> None:
        rows = [[1, 2, 3], [4, 5, 6]]
        assert ids_of(make(rows)) == rows

    def test_rows_of_different_length(self) -> None:
        rows = [[1, 2, 3], [4, 5], [6, 7, 8, 9]]
        assert ids_of(rows) == rows
        assert ids_of([torch.tensor(row) for row in rows]) == rows

    def test_one_row_in_a_list(self) -> None:
        assert ids_of([[1, 2, 3]]) == [[1, 2, 3]]

    def test_tokenised_dataset_without_its_padding(self) -> None:
        data = datasets.Dataset.from_dict(
            {"input_ids": [[1, 2, 3, 0], [0, 4, 5, 6]], "attention_mask": [[1, 1, 1, 0], [0, 1, 1, 1]]}
        )
        assert ids_of(data) == [[1, 2, 3], [4, 5, 6]]

    def test_dataloader(self) -> None:
        rows = torch.arange(12).view(3, 4)
        assert ids_of(DataLoader(rows, batch_size=2)) == rows.tolist()
        assert ids_of(DataLoader(torch.utils.data.TensorDataset(rows), batch_size=2)) == rows.tolist()
        mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1]])
        items = [{"input_ids": row, "attention_mask": keep} for row, keep in zip(rows, mask, strict=True)]
        assert ids_of(DataLoader(items, batch_size=2)) == [[0, 1, 2, 3], [4, 5], [9, 10, 11]]


class TestRefusals:
    def test_empty_file(self, tmp_path: Path, tokenizer) -> None:
        (tmp_path / "empty.txt").touch()
        with pytest.raises(CalibrationError, match=r"empty.txt is empty"):
            ids_of(None, tokenizer, SLEBConfig(sparsity=0.2, dataset=str(tmp_path / "empty.txt")))

    def test_missing_field(self, tmp_path: Path, tokenizer) -> None:
        path = tmp_path / "data.jsonl"
        path.write_text(json.dumps({"content": "w3", "id": 1}) + "\n")
        with pytest.raises(CalibrationError, match=r"Row 0 of .* has no field 'text', only 'content', 'id'"):
            ids_of(None, tokenizer, SLEBConfig(sparsity=0.2, dataset=str(path)))

    def test_missing_column(self, tokenizer) -> None:
        with pytest.raises(CalibrationError, match="Row 0 of the Dataset has no field 'text', only 'content'"):
            ids_of(datasets.Dataset.from_dict({"content": ["w3"]}), tokenizer)

    @pytest.mark.parametrize(("name", "content"), [("a.jsonl", b'{"text": "w3"\n'), ("a.parquet", b"no parquet")])
    def test_broken_file(self, name: str, content: bytes, tmp_path: Path, tokenizer) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CalibrationError, match=r"cannot be read as (json|parquet)"):
            ids_of(None, tokenizer, SLEBConfig(sparsity=0.2, dataset=str(tmp_path / name)))

    def test_binary_file(self, tmp_path: Path, tokenizer) -> None:
        (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(CalibrationError, match="is not UTF-8 text"):
            ids_of(None, tokenizer, SLEBConfig(sparsity=0.2, dataset=str(tmp_path / "a.txt")))

    def test_no_such_data(self, tokenizer) -> None:
        with pytest.raises(CalibrationError, match=r"'wiki' is neither a known data set \(wikitext2, c4\) nor a file"):
            ids_of(None, tokenizer, SLEBConfig(sparsity=0.2, dataset="wiki"))

    @pytest.mark.parametrize("name", ["wikitext2", "c4"])
    def test_no_hub(self, name: str, tokenizer) -> None:
        with pytest.raises(CalibrationError, match=f"'{name}' cannot be loaded from the Hub .*pass a local .txt"):
            ids_of(None, tokenizer, SLEBConfig(sparsity=0.2, dataset=name))
        with pytest.raises(CalibrationError, match=f"'{name}' cannot be loaded from the Hub .*pass a local .txt"):
            load_evaluation(name, tokenizer)

    def test_text_without_a_tokenizer(self) -> None:
        with pytest.raises(CalibrationError, match="a list of 1 texts is text, but there is no tokenizer"):
            ids_of(["w3"])

    @pytest.mark.parametrize("data", [3.5, object(), [], b"w3", torch.zeros(2, 2, 2, dtype=torch.long)])
    def test_unknown_kinds(self, data) -> None:
        with pytest.raises(CalibrationError, match="not supported; give a data set name, a file"):
            ids_of(data)

    def test_dataset_dict(self) -> None:
        data = datasets.DatasetDict(train=datasets.Dataset.from_dict({"text": ["w3"]}))
        with pytest.raises(CalibrationError, match=r"several splits \(train\); pass one of them"):
            ids_of(data)

    def test_dataloader_without_input_ids(self) -> None:
        with pytest.raises(CalibrationError, match="batches of type dict without input_ids"):
            ids_of(DataLoader([{"pixels": 1}]))
