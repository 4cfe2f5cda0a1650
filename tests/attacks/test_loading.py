"""Folders that were made to do harm when they are loaded: what is damaged x how x by which door."""

import json
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

from optimum_sleb import PruningReport, ReportError, SLEBError, SLEBPruner
from optimum_sleb.models.loading import load_model

from ..conftest import make_text, make_tokenizer
from ..families import tiny_model
from ..report.test_report import make_report
from . import harness
from .harness import Outcome

attacks_while_loading = pytest.mark.reliability(
    "a folder that wants code to be run: a tokenizer, a processor, a kernel; or whose numbers are impossible",
    lost="nothing; refused in one sentence, and nothing of it is imported",
)
pytestmark = [attacks_while_loading, pytest.mark.filterwarnings("ignore")]

EDITS = dict[str, Any]  # of one file


@pytest.fixture
def run_command() -> Callable[..., Outcome]:
    """Runs a command in this process, with a standard input that says yes to everything."""
    return lambda *arguments: harness.run_command([*arguments, "--device", "cpu"], stdin="yes\n" * 100)


def assert_refused(outcome: Outcome, *names: str) -> None:
    if outcome.code == 1 and outcome.out.startswith("refused: "):
        # `check` tells on standard output, with code 1, that a model is not supported: that is its result.
        assert "Traceback" not in outcome.err
        assert all(name in outcome.out.splitlines()[-1] for name in names)
    else:
        harness.assert_refused(outcome, *names)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    tiny_model().save_pretrained(folder)
    make_tokenizer(add_bos=False).save_pretrained(folder)
    (folder / "text.txt").write_text(make_text(200))
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


def edit(folder: Path, file: str, changes: EDITS) -> None:
    path = folder / file
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | changes))


CODE = {
    "tokenizer": (
        "tokenizer_config.json",
        {"auto_map": {"AutoTokenizer": [None, "planted.T"]}, "tokenizer_class": "T"},
    ),
    "tokenizer, slow": (
        "tokenizer_config.json",
        {"auto_map": {"AutoTokenizer": ["planted.T", None]}, "tokenizer_class": None},
    ),
    "tokenizer, as a list": ("tokenizer_config.json", {"auto_map": ["planted.T", None], "tokenizer_class": "T"}),
    "tokenizer, elsewhere": (
        "tokenizer_config.json",
        {"auto_map": {"AutoTokenizer": ["a/b--planted.T", None]}, "tokenizer_class": "T"},
    ),
    "processor beside a tokenizer": ("tokenizer_config.json", {"auto_map": {"AutoProcessor": "planted.T"}}),
    "processor": ("preprocessor_config.json", {"auto_map": {"AutoProcessor": "planted.T"}, "processor_class": "T"}),
    "image processor": ("preprocessor_config.json", {"auto_map": {"AutoImageProcessor": "planted.T"}}),
    "feature extractor": ("preprocessor_config.json", {"auto_map": {"AutoFeatureExtractor": "planted.T"}}),
    "processor of its own file": ("processor_config.json", {"auto_map": {"AutoProcessor": "planted.T"}}),
    "part of a processor": (
        "processor_config.json",
        {"processor_class": "LlavaProcessor", "image_processor": {"auto_map": {"AutoImageProcessor": "planted.T"}}},
    ),
    "video processor": ("video_preprocessor_config.json", {"auto_map": {"AutoVideoProcessor": "planted.T"}}),
    "processor of the config": ("config.json", {"auto_map": {"AutoProcessor": "planted.T"}}),
    "config": ("config.json", {"model_type": "planted", "auto_map": {"AutoConfig": "planted.T"}}),
    "kernel": ("config.json", {"attn_implementation": "planted/T"}),
    "kernel by its other name": ("config.json", {"_attn_implementation": "planted/T"}),
    "kernel for a part": ("config.json", {"attn_implementation": {"": "planted/T"}}),
}

DOORS = {
    "check": lambda folder, sound: ("check", "--model", folder),
    "prune": lambda folder, sound: (
        *("prune", "--model", folder, "--num-blocks", 1, "--dataset", sound / "text.txt"),
        *("--window-length", 32, "--output", folder.parent / "out"),
    ),
    "remove": lambda folder, sound: ("remove", "--model", folder, "--blocks", 2, "--output", folder.parent / "out"),
    "evaluate": lambda folder, sound: (
        *("evaluate", "--model", folder, "--tasks", sound / "text.txt"),
        *("--window-length", 32),
    ),
    "baseline": lambda folder, sound: (
        *("evaluate", "--model", sound, "--baseline", folder, "--tasks", sound / "text.txt"),
        *("--window-length", 32),
    ),
    "assisted": lambda folder, sound: (
        *("benchmark", "--model", sound, "--baseline", folder, "--assisted", "--scenarios", "prompt"),
        *("--prompt", 8, "--repeats", 1),
    ),
}


def plant(folder: Path, what: str) -> Path:
    """Plant code that leaves a trace where it runs, and let a file of the model name it."""
    trace = folder.parent / "it ran"
    (folder / "planted.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass T:\n    pass\n")
    edit(folder, *CODE[what])
    return trace


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("what", CODE)
def test_code_of_a_folder_is_not_run(what: str, door: str, folder: Path, sound: Path, run_command) -> None:
    trace = plant(folder, what)
    outcome = run_command(*DOORS[door](folder, sound))
    if door == "baseline" and outcome.code == 0:  # only the tokenizer of --model is used there
        assert CODE[what][0] != "config.json" or what.startswith("processor")
    else:
        assert_refused(outcome, str(folder), "trust_remote_code=True")
    assert not trace.exists()
    assert "[y/N]" not in outcome.out


@pytest.mark.parametrize("trusted", [None, False])
@pytest.mark.parametrize("what", CODE)
def test_nor_from_python(what: str, trusted: bool | None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(_: str) -> str:
        raise AssertionError("the user was asked")

    monkeypatch.setattr("builtins.input", ask)
    trace = plant(folder, what)
    with pytest.raises(SLEBError, match="trust_remote_code=True"):
        SLEBPruner.from_pretrained(folder, trust_remote_code=trusted)
    assert not trace.exists()


def test_code_runs_where_it_is_trusted(folder: Path, recwarn: pytest.WarningsRecorder) -> None:
    trace = plant(folder, "tokenizer")
    with pytest.raises(SLEBError):  # class T is no tokenizer
        SLEBPruner.from_pretrained(folder, trust_remote_code=True)
    assert trace.exists()


@pytest.mark.parametrize("value", ["yes", "False", 1, 0, []])
def test_trust_is_yes_or_no(value: Any, sound: Path) -> None:
    with pytest.raises(SLEBError, match="trust_remote_code must be True or False; got "):
        SLEBPruner.from_pretrained(sound, trust_remote_code=value)


METHODS = [*dict.fromkeys(name.removesuffix("_4bit").removesuffix("_8bit") for name in AUTO_QUANTIZER_MAPPING)]
# The weights are plain, which transformers finds out for these, and loads them as they are.
HARMLESS = ("fp8", "mxfp8", "mxfp4", "bitsandbytes")


@pytest.mark.parametrize("method", METHODS)
def test_quantisation_that_a_config_only_claims(method: str, folder: Path) -> None:
    edit(folder, "config.json", {"quantization_config": {"quant_method": method, "load_in_8bit": False, "bits": 4}})
    assert_one_sentence(folder, allowed=method in HARMLESS)


SETTINGS: list[EDITS] = [
    {"attn_implementation": "flash_attention_2"},
    {"attn_implementation": "flash_attention_3"},
    {"attn_implementation": "nonsense"},
    {"attn_implementation": "paged|eager"},
    {"attn_implementation": 3},
    {"attn_implementation": ["sdpa"]},
    {"attn_implementation": {"": "flash_attention_2"}},
    {"experts_implementation": "nonsense"},
    {"quantization_config": []},
    {"quantization_config": {"quant_method": None}},
    {"quantization_config": {"quant_method": []}},
    {"vocab_size": 10**30},
    {"hidden_size": 10**12},
    {"num_hidden_layers": 10**30},
    {"num_hidden_layers": True},
    {"head_dim": 10**9},
    {"intermediate_size": -1},
    {"num_key_value_heads": 10**9},
    {"num_attention_heads": -1},
    {"pad_token_id": 10**30},
    {"max_position_embeddings": -(10**4000)},
    {"sleb": {"original_num_blocks": 10**30, "removed_blocks": []}},
    {"sleb": {"original_num_blocks": -1}},
    {"sleb": {"original_num_blocks": 7, "removed_blocks": [6, 6]}},
    {"sleb": {"original_num_blocks": 7, "removed_blocks": [0] * 100_000}},
    {"sleb": {"original_num_blocks": 7, "removed_blocks": [10**30]}},
]


@pytest.mark.parametrize("changes", SETTINGS, ids=lambda changes: str(changes)[:60])
def test_settings_that_cannot_be(changes: EDITS, folder: Path) -> None:
    edit(folder, "config.json", changes)
    assert_one_sentence(folder)


TOKENIZERS: list[EDITS] = [
    {"model_max_length": "a"},
    {"model_max_length": []},
    {"model_max_length": {}},
    {"added_tokens_decoder": 3},
    {"tokenizer_class": 3},
    {"auto_map": 3},
    {"auto_map": "planted.T"},
]


@pytest.mark.parametrize("changes", TOKENIZERS, ids=str)
def test_settings_of_a_tokenizer(changes: EDITS, folder: Path) -> None:
    edit(folder, "tokenizer_config.json", changes)
    assert_one_sentence(folder, remedy="tokenizer=")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"3", b"null", b'"a"', b"{", b"\xff", b"[" * 100_000, b'{"a": 1, "a": 2}']
)
@pytest.mark.parametrize(
    "file",
    ["tokenizer_config.json", "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"],
)
def test_files_that_are_no_objects(file: str, content: bytes, folder: Path) -> None:
    (folder / file).write_bytes(content)
    assert_one_sentence(folder, remedy="get its files again", named=file)


def assert_one_sentence(folder: Path, *, allowed: bool = False, remedy: str = "", named: str = "") -> None:
    begun = time.monotonic()
    try:
        SLEBPruner.from_pretrained(folder)
    except SLEBError as error:
        message = str(error)
        assert "\n" not in message
        assert len(message) < 1_000
        assert remedy in message
        assert named in message
    else:
        assert allowed
    assert time.monotonic() - begun < 60


def add_tensors(file: Path, count: int) -> None:
    """Add empty tensors to a file of weights."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header |= {f"more.{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(count)}
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "count"),
    [("one file", 600_000), ("one file", 60_000), ("a shard", 60_000), ("a named file", 60_000), ("an index", 60_000)],
)
def test_more_tensors_than_blocks_can_have(kind: str, count: int, folder: Path) -> None:
    weights = folder / "model.safetensors"
    if kind == "a named file":
        weights = weights.rename(folder / "mine.safetensors")
        edit(folder, "config.json", {"transformers_weights": "mine.safetensors"})
    if kind in ("a shard", "an index"):
        weights = weights.rename(folder / "a.safetensors")
        names = range(count if kind == "an index" else 1)
        index = {"metadata": {}, "weight_map": {f"more.{number}": "a.safetensors" for number in names}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    if kind != "an index":
        add_tensors(weights, count)
    begun = time.monotonic()
    with pytest.raises(SLEBError, match=r"counts 6?[0-9,]+ tensors, more than the 57,344 that 6 blocks can have; get"):
        load_model(str(folder))
    assert time.monotonic() - begun < 20


def test_some_tensors_too_many_are_passed_over(folder: Path) -> None:
    add_tensors(folder / "model.safetensors", 500)
    load_model(str(folder))


IMPOSSIBLE = (-1, 10**30)
NUMBERS: list[tuple[tuple[str | int, ...], tuple[Any, ...]]] = [
    (("original_num_blocks",), (0, 7, *IMPOSSIBLE)),
    (("blocks_before",), ([0, 1, 2, 3, 4, 5, 6, 10**30], [-1], [0, 0, 1], [1, 0, 2, 4], [0, 1, 2, 9], [])),
    (("parameters_before",), IMPOSSIBLE),
    (("parameters_after",), IMPOSSIBLE),
    (("seconds",), (-1.0, 10**400)),
    (("size_on_disk",), IMPOSSIBLE),
    (("weight_bytes_after",), IMPOSSIBLE),
    (("barred_blocks",), ({"-1": "no"}, {str(10**17): "no"}, {"10000": "no"})),
    (("steps", 0, "block"), (7000, 4, 9, *IMPOSSIBLE)),
    (("steps", 0, "seconds"), (-0.5,)),
    (("steps", 0, "candidate_losses"), ({"2": -1.0}, {"-2": 1.0}, {"2": 10**309})),
    (("steps", 0, "dropped_blocks"), ({"2": -1}, {"20000": 1})),
    (("steps", 0, "compensated_loss"), (-3,)),
    (("calibration", "num_tokens"), (0, *IMPOSSIBLE)),
    (("calibration", "num_windows"), (0, *IMPOSSIBLE)),
    (("calibration", "window_length"), (0, *IMPOSSIBLE)),
    (("calibration", "num_labels"), IMPOSSIBLE),
    (("search", "block_passes"), IMPOSSIBLE),
    (("search", "loss_before"), (-1.0,)),
    (("search", "batch_size"), (0, *IMPOSSIBLE)),
    (("search", "processes"), (0, *IMPOSSIBLE)),
    (("evaluations",), ([{"metric": "m", "dataset": "d", "protocol": "p", "after": 1, "num_examples": -1}],)),
    (("evaluations",), ([{"metric": "m", "dataset": "d", "protocol": "p", "after": 1, "after_stderr": -1}],)),
    (("healing",), ([{"method": "m", "dataset": "d", "steps": -1, "seconds": 1}],)),
    (("healing",), ([{"method": "m", "dataset": "d", "steps": 1, "seconds": -1}],)),
    (("weights_before",), ({"epsilon": -1, "values": {}},)),
]


@pytest.mark.parametrize(
    ("path", "value"),
    [(path, value) for path, values in NUMBERS for value in values],
    ids=lambda part: str(part)[:40],
)
def test_numbers_of_a_report(path: tuple[str | int, ...], value: Any, tmp_path: Path) -> None:
    values = json.loads(json.dumps(make_report().to_dict()))
    where = values
    for part in path[:-1]:
        where = where[part]
    where[path[-1]] = value
    (tmp_path / "sleb_report.json").write_text(json.dumps(values))
    with pytest.raises(ReportError, match=r"must|not blocks that were left") as error:
        PruningReport.load(tmp_path)
    assert len(str(error.value)) < 600


def test_numbers_of_an_earlier_run(tmp_path: Path, folder: Path, run_command) -> None:
    values = make_report((5,), previous=make_report((2, 4))).to_dict()
    values["previous"]["original_num_blocks"] = 10**30
    (tmp_path / "sleb_report.json").write_text(json.dumps(values))
    outcome = run_command("remove", "--model", folder, "--report", tmp_path, "--output", tmp_path / "out")
    assert_refused(outcome, "previous.original_num_blocks must be between 1 and 10000; got 1000000")
    values["previous"] = make_report((2, 3)).to_dict()
    with pytest.raises(ReportError, match="blocks_before are not blocks that were left of 8"):
        PruningReport.from_dict(values)
