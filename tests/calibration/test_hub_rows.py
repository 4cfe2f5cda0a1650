"""Data sets of the Hub, streamed from a Hub on this machine, against the same rows in memory."""

import gzip
import io
import json

import datasets
import pytest
from datasets.exceptions import DatasetNotFoundError

from optimum_sleb import CalibrationError, SLEBConfig
from optimum_sleb.calibration.check import check_data
from optimum_sleb.calibration.sources import load_calibration, load_evaluation

from ..conftest import make_text
from ..hub.local_hub import Commit, Fault, LocalHub

ROWS = [make_text(9, seed=seed) for seed in range(40)]
CONFIGS = b"""---
configs:
- config_name: one
  data_files: one/*.jsonl
- config_name: two
  data_files: two/*.jsonl
---
"""


def as_jsonl(rows: list[str]) -> bytes:
    return "".join(json.dumps({"text": row}) + "\n" for row in rows).encode()


def as_parquet(rows: list[str]) -> bytes:
    file = io.BytesIO()
    datasets.Dataset.from_dict({"text": rows}).to_parquet(file)
    return file.getvalue()


@pytest.fixture
def hub(hub: LocalHub) -> LocalHub:
    packed = gzip.compress(as_jsonl(ROWS))
    plain = hub.add_dataset("me/plain", {"data/train.jsonl.gz": packed, "data/test.jsonl": as_jsonl(ROWS[:5])})
    plain.branches["v1"] = [Commit({"data/train.parquet": as_parquet(ROWS[20:])})]
    hub.add_dataset("me/two", {"README.md": CONFIGS, "one/a.jsonl": as_jsonl(ROWS[:9]), "two/b.jsonl": as_jsonl(ROWS)})
    hub.add_dataset("me/gated", {"train.jsonl": as_jsonl(ROWS)}, gated=True)
    hub.add_dataset("me/code", {"code.py": b"raise SystemExit('it ran')"})
    hub.add_dataset("me/broken", {"train.jsonl": b'{"text": "w3"}\n{"text": \n'})
    return hub


def ids_of(data, tokenizer, **recipe) -> list[list[int]]:
    config = SLEBConfig(sparsity=0.2, window_length=10, **recipe)
    return [window.tolist() for window in load_calibration(data, tokenizer, config).windows.windows]


@pytest.mark.long
def test_rows_in_order(hub: LocalHub, tokenizer) -> None:
    plain = {"dataset": "me/plain", "shuffle_buffer": 0}
    assert ids_of(None, tokenizer, **plain) == ids_of(ROWS, tokenizer)
    assert ids_of("me/plain", tokenizer, shuffle_buffer=0) == ids_of(ROWS, tokenizer)
    assert ids_of(None, tokenizer, **plain, dataset_split="test") == ids_of(ROWS[:5], tokenizer)
    assert ids_of(None, tokenizer, **plain, dataset_revision="v1") == ids_of(ROWS[20:], tokenizer)
    two = {"dataset": "me/two", "shuffle_buffer": 0}
    assert ids_of(None, tokenizer, **two, dataset_config="one") == ids_of(ROWS[:9], tokenizer)
    assert ids_of(None, tokenizer, **two, dataset_config="two") == ids_of(ROWS, tokenizer)


@pytest.mark.long
def test_rows_are_shuffled_by_the_seed(hub: LocalHub, tokenizer) -> None:
    stream = datasets.IterableDataset.from_generator(lambda: ({"text": row} for row in ROWS))
    for seed, buffer in [(0, None), (7, None), (7, 8)]:
        shuffled = stream.shuffle(seed=seed, buffer_size=buffer or 1000)
        recipe = {"dataset": "me/plain", "seed": seed, "shuffle_buffer": buffer}
        assert ids_of(None, tokenizer, **recipe) == ids_of([row["text"] for row in shuffled], tokenizer)


@pytest.mark.long
def test_an_evaluation_takes_the_split_for_tests_in_order(hub: LocalHub, tokenizer) -> None:
    loaded = load_evaluation("me/plain", tokenizer, window_length=10)
    assert [window.tolist() for window in loaded.windows.windows] == ids_of(ROWS[:5], tokenizer)
    assert loaded.source == "me/plain"


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"dataset": "me/none"}, "'me/none' cannot be read .*doesn't exist.*check the name, or log in"),
        ({"dataset": "me/gated"}, "'me/gated' cannot be read .*gated.*ask for access on its page"),
        ({"dataset": "me/two"}, r"me/two has several configs: 'one', 'two'; name one of them \(dataset_config\)"),
        (
            {"dataset": "me/two", "dataset_config": "three"},
            "me/two has no config 'three', only 'one', 'two'; name one",
        ),
        ({"dataset": "me/plain", "dataset_split": "dev"}, "me/plain has no split 'dev', only 'train', 'test'; name"),
        (
            {"dataset": "me/plain", "dataset_revision": "v9"},
            r"'me/plain' cannot be read .*'v9'.*name another one \(dataset_revision\)",
        ),
        ({"dataset": "me/plain", "text_column": "body"}, "Row 0 of me/plain has no field 'body', only 'text'"),
        ({"dataset": "me/code"}, "'me/code' cannot be loaded from the Hub .*scripts are no longer supported"),
        ({"dataset": "me/broken"}, "me/broken cannot be read from row 0 on"),
    ],
)
@pytest.mark.parametrize("door", ["check", "load"])
@pytest.mark.long
def test_refusals(hub: LocalHub, tokenizer, recipe: dict, message: str, door: str) -> None:
    with pytest.raises(CalibrationError, match=message) as error:
        if door == "check":
            check_data(SLEBConfig(sparsity=0.2, **recipe))
        else:
            ids_of(None, tokenizer, **recipe)
    assert len(str(error.value).splitlines()) == 1


def test_offline(tokenizer) -> None:
    with pytest.raises(CalibrationError, match="The Hub cannot be reached for the data set 'me/plain', and there is"):
        ids_of("me/plain", tokenizer)


@pytest.mark.long
def test_the_connection_breaks(hub: LocalHub, tokenizer) -> None:
    hub.faults.append(Fault("train.jsonl", None))
    with pytest.raises(CalibrationError, match="The Hub cannot be reached for the data set 'me/plain'"):
        ids_of("me/plain", tokenizer)


def test_the_token_is_told_to_nobody(hub: LocalHub, tokenizer) -> None:
    with pytest.raises(CalibrationError) as error:
        ids_of("me/none", tokenizer)
    assert any(token and token.startswith("Bearer ") for token in hub.tokens)
    assert "hf_" not in str(error.value)
    assert isinstance(error.value.__cause__, DatasetNotFoundError)
