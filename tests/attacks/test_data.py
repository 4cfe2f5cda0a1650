"""Strange data, windows and options: one sentence that names the input and the remedy, or the right result."""

import bz2
import datetime
import gzip
import json
import lzma
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPTJConfig, OPTConfig, PreTrainedModel

from optimum_sleb import ConfigError, SLEBConfig, SLEBError, SLEBPruner, perplexity
from optimum_sleb.calibration.sources import load_calibration, load_evaluation
from optimum_sleb.config import MOST
from optimum_sleb.models.positions import most_positions

from ..architectures.tiny import tiny_model as tiny
from ..conftest import make_text, make_tokenizer
from .harness import Outcome, run_command

CONFIG = SLEBConfig(sparsity=0.2, window_length=8, max_windows=4)
TEXT = make_text(60)


@pytest.fixture
def command() -> Callable[..., Outcome]:
    """Runs a command in this process."""
    return lambda *arguments: run_command(arguments)


def assert_one_sentence(message: str, *names: str) -> None:
    assert "Traceback" not in message
    assert len(message.strip().splitlines()) == 1, message
    assert len(message) < 600, message
    for name in names:
        assert name in message


# What stands where text is expected, beside rows with text.
VALUES: dict[str, Any] = {
    "number": 5,
    "fraction": 1.5,
    "list": ["w3"],
    "null": None,
    "truth": True,
    "object": {"a": 1},
    "date": datetime.datetime(2020, 1, 1),
    "bytes": b"w3",
}


def as_jsonl(rows: list[Any], path: Path) -> Any:
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return path


def as_parquet(rows: list[Any], path: Path) -> Any:
    as_dataset(rows, path).to_parquet(path)
    return path


def as_dataset(rows: list[Any], _path: Path) -> Any:
    return datasets.Dataset.from_dict({"text": rows})


def as_stream(rows: list[Any], path: Path) -> Any:
    return as_dataset(rows, path).to_iterable_dataset()


def as_generator(rows: list[Any], _path: Path) -> Any:
    return datasets.IterableDataset.from_generator(lambda: ({"text": row} for row in rows))


def as_list(rows: list[Any], _path: Path) -> Any:
    return rows


# A column of one type cannot hold text and something else: there, all rows are wrong.
DOORS = {
    ("jsonl", as_jsonl): "mixed",
    ("parquet", as_parquet): "one type",
    ("dataset", as_dataset): "one type",
    ("stream", as_stream): "one type",
    ("generator", as_generator): "mixed",
    ("list", as_list): "mixed",
}
NO_TEXT = [
    (door, make, value, rows)
    for (door, make), kind in DOORS.items()
    for value in VALUES
    for rows in ("first", "last", "all")
    if (kind == "mixed" or rows == "all" or value == "null")
    and not (door == "jsonl" and value in ("date", "bytes"))
    and not (door == "list" and rows == "all")  # a list without any text is one of token ids
]


@pytest.mark.parametrize(("door", "make", "value", "rows"), NO_TEXT, ids=lambda value: str(value)[:12])
def test_a_value_that_is_no_text(door: str, make, value: str, rows: str, tmp_path: Path, tokenizer) -> None:
    wrong = VALUES[value]
    data = {"first": [wrong, TEXT], "last": ["w3", wrong, TEXT], "all": [wrong, wrong]}[rows]
    number = 1 if rows == "last" else 0
    with pytest.raises(SLEBError) as error:
        load_calibration(make(data, tmp_path / f"data.{door}"), tokenizer, CONFIG)
    names = ["Item" if door == "list" else "Row", f" {number} of ", "text"]
    assert_one_sentence(str(error.value), *names, *([f"data.{door}"] if door in ("jsonl", "parquet") else []))


ROWS = b'{"text": "w3 w4 w5 w6"}\n' * 2000
FILES: dict[str, bytes] = {
    "cut.jsonl.gz": gzip.compress(ROWS)[:-30],
    "half.jsonl.gz": gzip.compress(ROWS, 1)[:60],
    "cut.jsonl.bz2": bz2.compress(ROWS)[:-30],
    "cut.jsonl.xz": lzma.compress(ROWS)[:-30],
    "none.jsonl.gz": b"no gzip",
    "none.jsonl.bz2": b"no bzip2",
    "none.jsonl.xz": b"no xz",
    "none.jsonl.zip": b"no zip",
    "none.jsonl.zst": b"no zstandard",
    "none.parquet": b"no parquet",
    "magic.parquet": b"PAR1PAR1",
    "numbers.jsonl": b"5\n6\n",
    "open.jsonl": b'{"text": "w3"',
    "second.jsonl": b'{"text": "w3"}\n{"text": \n',
    "latin.jsonl": '{"text": "é"}\n'.encode("latin-1"),
    "half a pair.jsonl": b'{"text": "\\ud800"}\n',
    "other field.jsonl": b'{"content": "w3"}\n',
    "empty.jsonl": b"",
    "blank.jsonl": b"\n\n",
    "scalar.json": b"5",
    "empty list.json": b"[]",
    "empty.parquet": b"",
    "empty.txt": b"",
    "spaces.txt": b" \n " * 50,
    "utf16.txt": TEXT.encode("utf-16"),
    "cut.txt": "w3 é".encode()[:-1],
    "late.txt": b"w3 " * 5 + b"\xff",
    "cut.txt.gz": gzip.compress(TEXT.encode())[:-9],
    "packed.txt.zip": gzip.compress(TEXT.encode()),
    "short.csv": b"text\nw3\n",
    "zeros.txt": b"\x00" * 3,
}


@pytest.mark.parametrize("door", ["calibration", "recipe", "evaluation"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file(name: str, door: str, tmp_path: Path, tokenizer) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name])
    with pytest.raises(SLEBError) as error:
        if door == "calibration":
            load_calibration(path, tokenizer, CONFIG)
        elif door == "recipe":
            load_calibration(None, tokenizer, SLEBConfig(sparsity=0.2, window_length=8, dataset=str(path)))
        else:
            load_evaluation(str(path), tokenizer, window_length=8)
    assert_one_sentence(str(error.value))


@pytest.mark.parametrize("name", ["a[1].jsonl", "a*.jsonl", "a b.jsonl", "ä.jsonl", "a{1}.jsonl", "a?.jsonl"])
def test_a_strange_name(name: str, tmp_path: Path, tokenizer) -> None:
    path = tmp_path / name
    path.write_bytes(ROWS)
    assert len(load_calibration(path, tokenizer, CONFIG).windows) == 4


@pytest.mark.long
@pytest.mark.parametrize("name", ["late.jsonl", "late.txt", "late.jsonl.gz"])
def test_what_lies_behind_the_windows_is_not_read(name: str, tmp_path: Path, tokenizer) -> None:
    rows = ROWS * 600
    damaged = {"late.jsonl": rows + b"{", "late.txt": rows + b"\xff", "late.jsonl.gz": gzip.compress(rows, 1)[:-20]}
    (tmp_path / name).write_bytes(damaged[name])
    assert len(load_calibration(tmp_path / name, tokenizer, CONFIG).windows) == 4


IDS: dict[str, Callable[[], Any]] = {
    "0-d": lambda: torch.tensor(5),
    "0-d array": lambda: np.array(5),
    "sparse": lambda: torch.ones(2, 8).long().to_sparse(),
    "csr": lambda: torch.ones(2, 8).to_sparse_csr(),
    "meta": lambda: torch.ones(2, 8, dtype=torch.long, device="meta"),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(3), torch.ones(2)]),
    "float": lambda: torch.ones(2, 8),
    "half": lambda: torch.ones(2, 8).half(),
    "complex": lambda: torch.ones(2, 8, dtype=torch.complex64),
    "bool": lambda: torch.ones(2, 8, dtype=torch.bool),
    "float array": lambda: np.ones((2, 8)),
    "bool array": lambda: np.ones((2, 8), dtype=bool),
    "text array": lambda: np.array(["w3"] * 8),
    "object array": lambda: np.array([None] * 8),
    "float list": lambda: [1.5] * 8,
    "bool list": lambda: [True] * 8,
    "float rows": lambda: [[1.5] * 8] * 2,
    "null in a row": lambda: [[3, None, 4]],
    "null row": lambda: [[3, 4, 5], None],
    "text row": lambda: [[3, 4, 5], "w3 w4"],
    "bytes": lambda: b"w3 w4",
    "bytes rows": lambda: [b"w3", b"w4"],
    "huge": lambda: [[2**70, 3, 4]],
    "ragged deep": lambda: [[[3, 4], [5]]],
    "0-d rows": lambda: [torch.tensor(3), [3, 4]],
    "sparse rows": lambda: [torch.ones(8).long().to_sparse()],
    "meta rows": lambda: [torch.ones(8, device="meta")],
    "three dimensions": lambda: torch.ones(2, 2, 8, dtype=torch.long),
    "empty tensor": lambda: torch.empty(0, dtype=torch.long),
    "empty rows": lambda: [[], []],
    "short rows": lambda: [[3], [4]],
    "set": lambda: {3, 4, 5},
    "generator": lambda: (number for number in range(80)),
    "dictionary": lambda: {"input_ids": [[3, 4, 5]]},
    "function": lambda: len,
}


@pytest.mark.parametrize("kind", IDS)
def test_token_ids_of_a_strange_kind(kind: str) -> None:
    with pytest.raises(SLEBError) as error:
        load_calibration(IDS[kind](), None, CONFIG)
    assert_one_sentence(str(error.value).replace("\n", " ") if kind == "nested" else str(error.value))


COLUMNS: dict[str, dict[str, list[Any]]] = {
    "floats": {"input_ids": [[1.5, 2.5]]},
    "truths": {"input_ids": [[True, False]]},
    "text": {"input_ids": ["w3 w4"]},
    "null": {"input_ids": [[3, 4], None]},
    "null inside": {"input_ids": [[3, None]]},
    "numbers": {"input_ids": [3, 4]},
    "short labels": {"input_ids": [[3, 4, 5]], "labels": [[3]]},
    "float labels": {"input_ids": [[3, 4, 5]], "labels": [[0.5, 0.5, 0.5]]},
    "one label": {"input_ids": [[3, 4, 5]], "labels": [1]},
    "deep": {"input_ids": [[[3, 4], [5, 6]]]},
}


@pytest.mark.parametrize("door", ["dataset", "stream", "generator", "loader"])
@pytest.mark.parametrize("kind", COLUMNS)
def test_rows_of_a_strange_kind(kind: str, door: str) -> None:
    rows = [dict(zip(COLUMNS[kind], values, strict=True)) for values in zip(*COLUMNS[kind].values(), strict=True)]
    data: Any = datasets.Dataset.from_dict(COLUMNS[kind])
    if door == "stream":
        data = data.to_iterable_dataset()
    elif door == "generator":
        data = datasets.IterableDataset.from_generator(lambda: iter(rows))
    elif door == "loader":
        data = DataLoader(rows, collate_fn=lambda items: {name: [item[name] for item in items] for name in items[0]})
    with pytest.raises(SLEBError) as error:
        load_calibration(data, None, SLEBConfig(sparsity=0.2))
    assert_one_sentence(str(error.value), "Row ")


@pytest.mark.parametrize("kind", ["0-d", "sparse", "meta", "float", "bool", "half", "complex"])
@pytest.mark.parametrize("door", ["tensor", "dictionary"])
def test_batches_of_a_strange_kind(kind: str, door: str) -> None:
    batch = IDS[kind]() if door == "tensor" else {"input_ids": IDS[kind]()}
    with pytest.raises(SLEBError) as error:
        load_calibration(DataLoader([0], collate_fn=lambda _: batch), None, CONFIG)
    assert_one_sentence(str(error.value), "atch 0")


def test_a_dataset_that_fails_while_it_is_read(tokenizer) -> None:
    def rows() -> Any:
        yield {"text": "w3"}
        raise OSError("the disk is gone")

    with pytest.raises(SLEBError, match=r"Row 1 of the Dataset cannot be read \(OSError: the disk is gone\)"):
        load_calibration(datasets.IterableDataset.from_generator(rows), tokenizer, CONFIG)


# Windows longer than the model's positions.

BOUNDED = ["gpt2", "opt", "gptj", "mpt", "roberta", "bart", "ctrl"]


@pytest.mark.parametrize("family", BOUNDED)
def test_positions_that_end(family: str) -> None:
    model = tiny(family).eval()
    most = most_positions(model)
    with torch.no_grad():
        model(torch.full((1, most), 5))
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, most + 1), 5))


@pytest.mark.parametrize("family", ["llama", "bloom", "mamba", "xglm"])
def test_positions_without_end(family: str) -> None:
    assert most_positions(tiny(family)) is None


@pytest.mark.parametrize("config", [GPT2Config(), OPTConfig(), GPTJConfig()], ids=lambda config: config.model_type)
def test_the_positions_of_the_real_models(config: Any) -> None:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        assert most_positions(AutoModelForCausalLM.from_config(config)) == config.max_position_embeddings


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_the_published_length_gives_way(family: str, tokenizer) -> None:
    pruner = SLEBPruner(tiny(family), tokenizer)
    with pytest.warns(UserWarning, match="has 128 positions, so windows of a text have 128 tokens"):
        pruner.prune(SLEBConfig(num_blocks_to_remove=1, max_windows=2), calibration=[make_text(600)])
    assert pruner.report.calibration.window_length == 128
    assert pruner.report.recipe.window_length == 2048


@pytest.mark.parametrize("door", ["prune", "perplexity", "rows"])
@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_longer_windows_are_refused(family: str, door: str, tokenizer, tmp_path: Path) -> None:
    model = tiny(family)
    (tmp_path / "text.txt").write_text(make_text(600))
    recipe = SLEBConfig(num_blocks_to_remove=1, window_length=129)
    with pytest.raises(SLEBError) as error:
        if door == "prune":
            SLEBPruner(model, tokenizer).prune(recipe, calibration=[make_text(600)])
        elif door == "rows":
            SLEBPruner(model).prune(SLEBConfig(num_blocks_to_remove=1), calibration=[[3, 4, 5], [3] * 129])
        else:
            perplexity(model, tokenizer, str(tmp_path / "text.txt"), window_length=129)
    assert_one_sentence(str(error.value), "129", "128 positions")


def test_rotary_positions_are_only_warned_of(llama: PreTrainedModel, tokenizer) -> None:
    most = llama.config.max_position_embeddings
    config = SLEBConfig(num_blocks_to_remove=1, window_length=most + 1, max_windows=1)
    with pytest.warns(UserWarning, match=f"tokens are longer than the {most} positions"):
        SLEBPruner(llama, tokenizer).prune(config, calibration=[make_text(most + 50)])


# Options. Each command ends before a model is loaded: there are no weights.


@pytest.fixture
def no_weights(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    tiny("gpt2").config.save_pretrained(folder)
    make_tokenizer(add_bos=False).save_pretrained(folder)
    return folder


NUMBERS = ["10" + "0" * 29, str(MOST + 1), "-1", "0", "1.5", "many", "", "9" * 5000, "1e3", "٣x"]
NUMBER_OPTIONS = {
    "prune": ["--batch-size", "--window-length", "--max-windows", "--num-samples", "--num-blocks", "--beam-width"],
    "evaluate": ["--batch-size", "--window-length", "--max-windows", "--limit"],
    "heal": ["--batch-size", "--window-length", "--steps", "--tokens", "--rank", "--self-data", "--teacher-top-k"],
    "benchmark": ["--prompt", "--batch-sizes", "--short-prompt", "--new-tokens", "--repeats"],
}
COMMANDS = {
    "prune": ["--num-blocks", 1, "--dataset", "T", "--output", "O"],
    "evaluate": ["--tasks", "T"],
    "benchmark": [],
    "check": [],
    "heal": ["--dataset", "T", "--output", "O"],
    "remove": ["--blocks", 1, "--output", "O"],
}


def arguments_of(name: str, model: Path) -> list[Any]:
    places = {"T": model.parent / "text.txt", "O": model.parent / "out"}
    places["T"].write_text(TEXT)
    return [name, "--model", model, *(places.get(word, word) for word in COMMANDS[name])]


@pytest.mark.parametrize("value", NUMBERS, ids=lambda value: value[:12])
@pytest.mark.parametrize(
    ("name", "option"), [(name, option) for name, options in NUMBER_OPTIONS.items() for option in options]
)
def test_a_number_that_cannot_be(name: str, option: str, value: str, no_weights: Path, command) -> None:
    ended = command(*arguments_of(name, no_weights), "--device", "cpu", f"{option}={value}")
    assert ended.code == 2
    assert_one_sentence(ended.err.splitlines()[-1][:590], "error: ")
    assert option.strip("-").replace("-", "_") in ended.err.replace("-", "_")


BLOCKS_AND_TARGETS = [
    *(
        ("--protected-blocks", value)
        for value in ["5-2", "-3", "0-", "-", "0--3", "1.5", "all", "", ",", "٣", "0-3-5"]
    ),
    *(
        ("--protected-blocks", value)
        for value in ["0-99999999999", "9" * 5000, "0x3", "1e3", "30", "1-6", "0;1", "0-7"]
    ),
    *(("--candidate-blocks", value) for value in ["8", "0-3", "7-5", "-1", "nan", "1-1000000000"]),
    *(
        ("--max-parameters", value)
        for value in ["6Q", "nan", "1e400", "inf", "-3", "0", "", "6 B B", "1e-9", "9" * 5000]
    ),
    *(("--max-parameters", value) for value in ["1", "0x10", "6GB", "1_000", "100T", "٣B", "1.B", ".5B", "1e99"]),
    *(("--max-memory", value) for value in ["16G", "nanGB", "1e400", "-1GB", "0GB", "16 GiBs", "1", "10TB", "1,5GB"]),
    *(("--min-speedup", value) for value in ["1", "0.5", "nan", "1e400", "-2", "inf", "fast", ""]),
]


@pytest.mark.parametrize(("option", "value"), BLOCKS_AND_TARGETS, ids=lambda value: value[:16])
def test_blocks_and_targets_that_cannot_be(option: str, value: str, no_weights: Path, command) -> None:
    words = arguments_of("prune", no_weights)
    if option not in ("--protected-blocks", "--candidate-blocks"):
        del words[3:5]  # the number of blocks
    ended = command(*words, "--device", "cpu", f"{option}={value}")
    assert ended.code == 2
    assert_one_sentence(ended.err.splitlines()[-1][:590], "error: ")
    assert option.strip("-").replace("-", "_") in ended.err.replace("-", "_")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sparsity", "0.5", "--max-parameters", "6B"], ["not allowed with argument"]),
        (["--max-memory", "1kB", "--speedup-of", "prompt"], ["speedup_of", "belongs to min_speedup"]),
        (["--max-parameters", "1M", "--context", "9"], ["context_length=9", "belongs to max_memory"]),
        (["--max-memory", "1GB", "--context", "129"], ["context_length=129", "128 positions"]),
        (["--max-parameters", "1"], ["max_parameters=1 ", "without all 6 of the 8 blocks"]),
        (["--max-memory", "1GB"], ["max_memory=1.000 GB", "already"]),
        (["--num-blocks", "3", "--candidate-blocks", "3-4"], ["remove at most 2 blocks"]),
        (["--num-blocks", "1", "--candidate-blocks", "3-4", "--protected-blocks", "4", "5"], ["both name block 4"]),
    ],
)
def test_options_that_contradict(options: list[str], words: list[str], no_weights: Path, command) -> None:
    base = arguments_of("prune", no_weights)
    del base[3:5]
    ended = command(*base, "--device", "cpu", *options)
    assert ended.code == 2
    assert_one_sentence(ended.err.splitlines()[-1], *words)


@pytest.mark.parametrize("field", ["protected_blocks", "candidate_blocks", "max_parameters", "max_memory"])
@pytest.mark.parametrize("value", [10**4000, -1, 1.5, True, b"0-3", {0: 1}, [[0]], [None], [True], [1.0], "☃", [-1]])
def test_blocks_and_amounts_from_python_that_cannot_be(field: str, value: Any) -> None:
    amount = {} if field.startswith("max_") else {"sparsity": 0.2}
    with pytest.raises(ConfigError) as error:
        SLEBConfig(**amount, **{field: value})
    assert_one_sentence(str(error.value), field)


LOADING = {
    "--device": ["privateuseone", "meta", "cuda:99", "gpu", "cuda:x", "xpu", "mps:3", "cpu:cpu", "☃", "vulkan"],
    "--dtype": ["foo", "int8", "float", "nn", "float32x", "torch", "torch.long", "bool", "__doc__", "quint8"],
}
REFUSED = {("--dtype", "float"): False}  # torch.float is float32


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(("option", "value"), [(option, value) for option in LOADING for value in LOADING[option]])
def test_a_device_or_precision_that_is_not_there(option: str, value: str, name: str, no_weights, command) -> None:
    if not REFUSED.get((option, value), True):
        return
    device = [] if option == "--device" else ["--device", "cpu"]
    ended = command(*arguments_of(name, no_weights), *device, option, value)
    assert ended.code == 2
    assert_one_sentence(ended.err, f"{value!r}")


@pytest.mark.parametrize("name", ["c.foo", "c", "c.", ".png", "c.png.txt", "folder.png"])
def test_a_picture_that_cannot_be_drawn(name: str, tmp_path: Path, no_weights: Path, command) -> None:
    (tmp_path / "folder.png").mkdir()
    ended = command("evaluate", "--curve", "--report", no_weights, "--output", tmp_path / name, "--device", "cpu")
    assert ended.code == 2
    assert_one_sentence(ended.err, name, ".png")


@pytest.mark.parametrize("name", ["prune", "evaluate"])
def test_longer_windows_are_refused_before_loading(name: str, no_weights: Path, command) -> None:
    ended = command(*arguments_of(name, no_weights), "--window-length", 129, "--device", "cpu")
    assert ended.code == 2
    assert_one_sentence(ended.err, "window_length=129", "128 positions", "at most 128")


@pytest.mark.parametrize("count", [7, 8, 9, 30])
def test_too_many_blocks_are_refused_before_loading(count: int, no_weights: Path, command) -> None:
    ended = command(*arguments_of("prune", no_weights), "--num-blocks", count, "--device", "cpu")
    assert ended.code == 2
    assert_one_sentence(ended.err, f"num_blocks_to_remove={count}", "8 blocks", "remove at most 6 blocks")
    assert "-1" not in ended.err


@pytest.mark.parametrize("field", ["num_samples", "window_length", "max_windows", "seed", "batch_size"])
@pytest.mark.parametrize("value", [MOST + 1, 10**30, -1, True, 1.5, "1"])
def test_a_recipe_that_cannot_be(field: str, value: Any) -> None:
    with warnings.catch_warnings(), pytest.raises(ConfigError) as error:
        SLEBConfig(sparsity=0.2, **{field: value})
    assert_one_sentence(str(error.value), field)
