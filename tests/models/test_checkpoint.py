"""Damaged, foreign and dangerous files: one clear error, before anything in them is used."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi
from transformers import AutoModelForCausalLM, PreTrainedModel

from optimum_sleb import ModelNotFoundError, SLEBError, SLEBPruner, UnsupportedModelError
from optimum_sleb.models.loading import load_model, load_tokenizer

from ..families import tiny_model
from ..hub.local_hub import LocalHub

weights_are_damaged = pytest.mark.reliability(
    "weights that are pickles, cut short, garbled, missing, or named outside of the folder",
    lost="nothing; refused before anything is loaded",
)
config_is_damaged = pytest.mark.reliability(
    "a config or tokenizer that is empty, cut short, of the wrong types, deeply nested, or asks for 10^9 blocks",
    lost="nothing; one clear sentence",
)


def edit(file: Path, change: Callable[[Any], Any]) -> None:
    file.write_text(json.dumps(change(json.loads(file.read_text()))))


def name_weights(folder: Path, old: str, new: str) -> Path:
    """Rename the file of weights, and let the config name it."""
    edit(folder / "config.json", lambda config: config | {"transformers_weights": new})
    return (folder / old).rename(folder / new)


@pytest.fixture
def sharded(llama: PreTrainedModel, tmp_path: Path) -> Path:
    llama.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    return tmp_path / "sharded"


class TestPickles:
    @pytest.fixture
    def pickled(self, llama: PreTrainedModel, model_folder: Path) -> Path:
        (model_folder / "model.safetensors").unlink()
        torch.save(llama.state_dict(), model_folder / "pytorch_model.bin")
        return model_folder

    @weights_are_damaged
    def test_are_refused_with_a_remedy_that_works(self, pickled: Path, tmp_path: Path) -> None:
        with pytest.raises(UnsupportedModelError, match=r"only as pickles \(pytorch_model.bin\).*convert them once"):
            SLEBPruner.from_pretrained(pickled)
        model = AutoModelForCausalLM.from_pretrained(pickled, use_safetensors=False)
        model.save_pretrained(tmp_path / "converted")
        load_model(str(tmp_path / "converted"))

    @weights_are_damaged
    def test_in_shards(self, pickled: Path) -> None:
        (pickled / "pytorch_model.bin").rename(pickled / "pytorch_model-00001-of-00001.bin")
        (pickled / "pytorch_model.bin.index.json").write_text('{"metadata": {}, "weight_map": {}}')
        with pytest.raises(UnsupportedModelError, match=r"only as pickles \(pytorch_model.bin.index.json\)"):
            load_model(str(pickled))

    @weights_are_damaged
    def test_on_the_hub(self, hub: LocalHub, pickled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            raise AssertionError("the weights were downloaded by transformers")

        HfApi().create_repo("me/pickled")
        HfApi().upload_folder(repo_id="me/pickled", folder_path=pickled)
        monkeypatch.setattr("optimum_sleb.models.loading.AutoModelForCausalLM.from_pretrained", fail)
        with pytest.raises(UnsupportedModelError, match="only as pickles"):
            load_model("me/pickled")

    def test_load_when_the_caller_says_so(self, pickled: Path) -> None:
        SLEBPruner.from_pretrained(pickled, use_safetensors=False).remove([2])

    @weights_are_damaged
    @pytest.mark.parametrize("name", ["adapter_model.bin", "pytorch_model.bin", "model.safetensors.bin", "", 3, ["a"]])
    def test_named_by_the_config(self, pickled: Path, name: Any) -> None:
        shutil.copy(pickled / "pytorch_model.bin", pickled / "adapter_model.bin")
        edit(pickled / "config.json", lambda config: config | {"transformers_weights": name})
        message = rf"names the weights {re.escape(repr(name))} .transformers_weights.*no plain name of a safetensors"
        for asked in ({}, {"use_safetensors": True}, {"use_safetensors": None}):
            with pytest.raises(UnsupportedModelError, match=message):
                load_model(str(pickled), **asked)
        if name == "adapter_model.bin":
            load_model(str(pickled), use_safetensors=False)

    @weights_are_damaged
    def test_behind_an_adapter(self, hub: LocalHub, pickled: Path, tmp_path: Path) -> None:
        """From the Hub, transformers would load the model that the adapter names, and the adapter from a pickle."""
        (pickled / "pytorch_model.bin").rename(pickled / "adapter_model.bin")
        edit(pickled / "config.json", lambda config: config | {"transformers_weights": "adapter_model.bin"})
        HfApi().create_repo("me/pickled")
        HfApi().upload_folder(repo_id="me/pickled", folder_path=pickled)
        tiny_model().save_pretrained(tmp_path / "adapted")
        adapter = {"peft_type": "LORA", "target_modules": ["q_proj"], "base_model_name_or_path": "me/pickled"}
        (tmp_path / "adapted" / "adapter_config.json").write_text(json.dumps(adapter))
        HfApi().create_repo("me/adapted")
        HfApi().upload_folder(repo_id="me/adapted", folder_path=tmp_path / "adapted")
        for name in ("me/adapted", str(tmp_path / "adapted")):
            with pytest.raises(UnsupportedModelError, match=f"{name}' holds a PEFT adapter .*merge_and_unload"):
                load_model(name)

    def test_are_passed_over_beside_safetensors(self, model_folder: Path) -> None:
        (model_folder / "pytorch_model.bin").write_bytes(b"this is never opened")
        load_model(str(model_folder))


class TestShards:
    def test_whole_ones_load(self, sharded: Path) -> None:
        load_model(str(sharded))

    def test_of_a_variant(self, llama: PreTrainedModel, tmp_path: Path) -> None:
        llama.save_pretrained(tmp_path, variant="fp32", max_shard_size="20KB")
        load_model(str(tmp_path), variant="fp32")

    @weights_are_damaged
    @pytest.mark.parametrize("outside", ["../outside.safetensors", "{absolute}", "a/../../outside.safetensors"])
    def test_outside_of_the_folder(self, sharded: Path, outside: str) -> None:
        outside = outside.format(absolute=sharded.parent / "outside.safetensors")
        shard = sharded / "model-00001-of-00012.safetensors"
        shutil.copy(shard, sharded.parent / "outside.safetensors")  # as such it could be loaded
        edit(
            sharded / "model.safetensors.index.json",
            lambda index: (
                index
                | {
                    "weight_map": {
                        key: outside if name == shard.name else name for key, name in index["weight_map"].items()
                    }
                }
            ),
        )
        with pytest.raises(UnsupportedModelError, match="lies outside of the model's folder; do not use"):
            load_model(str(sharded))

    @weights_are_damaged
    @pytest.mark.parametrize("outside", [r"..\outside.safetensors", r"C:\outside.safetensors", "C:outside"])
    def test_outside_of_the_folder_on_windows(self, sharded: Path, outside: str) -> None:
        edit(sharded / "model.safetensors.index.json", lambda index: index | {"weight_map": {"a": outside}})
        with pytest.raises(UnsupportedModelError, match="lies outside of the model's folder"):
            load_model(str(sharded))

    @weights_are_damaged
    def test_missing(self, sharded: Path) -> None:
        (sharded / "model-00002-of-00012.safetensors").unlink()
        with pytest.raises(ModelNotFoundError, match=r"'model-00002-of-00012.safetensors', which is missing; get it"):
            load_model(str(sharded))

    @weights_are_damaged
    @pytest.mark.parametrize(
        "content", ["", "[]", "{}", '{"weight_map": "x"}', '{"weight_map": {"a": 3}}', '{"weight_map": {"a": []}}']
    )
    def test_no_index(self, sharded: Path, content: str) -> None:
        (sharded / "model.safetensors.index.json").write_text(content)
        with pytest.raises(ModelNotFoundError, match="is no index of weights .*get the file again"):
            load_model(str(sharded))


@weights_are_damaged
class TestNamedWeights:
    """A config may name the file of its weights, as `transformers_weights`."""

    def test_of_one_file(self, model_folder: Path) -> None:
        name_weights(model_folder, "model.safetensors", "mine.safetensors")
        load_model(str(model_folder))

    def test_in_shards(self, sharded: Path) -> None:
        name_weights(sharded, "model.safetensors.index.json", "mine.safetensors.index.json")
        load_model(str(sharded))

    @pytest.mark.parametrize(
        "name",
        ["../mine.safetensors", "a/mine.safetensors", "{absolute}", r"..\mine.safetensors", "C:mine.safetensors"],
    )
    def test_outside_of_the_folder(self, model_folder: Path, name: str) -> None:
        name = name.format(absolute=model_folder / "model.safetensors")
        edit(model_folder / "config.json", lambda config: config | {"transformers_weights": name})
        with pytest.raises(UnsupportedModelError, match="no plain name of a safetensors file"):
            load_model(str(model_folder))

    @pytest.mark.parametrize("name", ["mine.safetensors", "mine.safetensors.index.json"])
    def test_missing(self, model_folder: Path, name: str) -> None:
        edit(model_folder / "config.json", lambda config: config | {"transformers_weights": name})
        with pytest.raises(ModelNotFoundError, match=f"names the weights '{name}'.*which cannot be found; get"):
            load_model(str(model_folder))

    def test_cut_off(self, model_folder: Path) -> None:
        file = name_weights(model_folder, "model.safetensors", "mine.safetensors")
        file.write_bytes(file.read_bytes()[:-7])
        with pytest.raises(ModelNotFoundError, match=r"mine\.safetensors are damaged or incomplete"):
            load_model(str(model_folder))

    def test_a_cut_off_shard(self, sharded: Path) -> None:
        name_weights(sharded, "model.safetensors.index.json", "mine.safetensors.index.json")
        shard = sharded / "model-00003-of-00012.safetensors"
        shard.write_bytes(shard.read_bytes()[:-7])
        with pytest.raises(ModelNotFoundError, match=r"model-00003-of-00012\.safetensors are damaged"):
            load_model(str(sharded))

    def test_shards_outside_of_the_folder(self, sharded: Path) -> None:
        index = name_weights(sharded, "model.safetensors.index.json", "mine.safetensors.index.json")
        edit(index, lambda index: index | {"weight_map": {"a": "../outside.safetensors"}})
        with pytest.raises(UnsupportedModelError, match="lies outside of the model's folder"):
            load_model(str(sharded))


@weights_are_damaged
class TestDamagedWeights:
    @pytest.mark.parametrize("length", [0, 4, 8, 100, 5_000, -1])
    def test_cut_off(self, model_folder: Path, length: int) -> None:
        file = model_folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:length])
        with pytest.raises(
            ModelNotFoundError, match=r"model\.safetensors are damaged or incomplete .*get the file again"
        ):
            SLEBPruner.from_pretrained(model_folder)

    @pytest.mark.parametrize("start", [0, 8, 20, 1_000])
    def test_overwritten_header(self, model_folder: Path, start: int) -> None:
        file = model_folder / "model.safetensors"
        content = bytearray(file.read_bytes())
        content[start : start + 8] = b"\xff" * 8
        file.write_bytes(content)
        with pytest.raises(ModelNotFoundError, match="are damaged or incomplete"):
            load_model(str(model_folder))

    def test_a_cut_off_shard(self, sharded: Path) -> None:
        shard = sharded / "model-00003-of-00012.safetensors"
        shard.write_bytes(shard.read_bytes()[:-7])
        with pytest.raises(ModelNotFoundError, match=r"model-00003-of-00012\.safetensors are damaged"):
            load_model(str(sharded))


class TestDamagedConfig:
    @config_is_damaged
    @pytest.mark.parametrize("content", [b"", b'{"model_type": "lla', b"[]", b"\xff\xfe\x00", b"[" * 100_000, b"3"])
    def test_no_config(self, model_folder: Path, content: bytes) -> None:
        (model_folder / "config.json").write_bytes(content)
        with pytest.raises(SLEBError, match=r"not a valid JSON file|config\.json"):
            load_model(str(model_folder))

    @config_is_damaged
    @pytest.mark.parametrize("count", [10**9, 0, -3])
    def test_absurd_numbers_of_blocks(self, model_folder: Path, count: int) -> None:
        edit(model_folder / "config.json", lambda config: config | {"num_hidden_layers": count})
        with pytest.raises(UnsupportedModelError, match=f"has {count} blocks, where 1 to 10000 are expected"):
            load_model(str(model_folder))

    @config_is_damaged
    @pytest.mark.parametrize(
        "change",
        [
            {"num_hidden_layers": "six"},
            {"num_hidden_layers": 7},
            {"hidden_size": None},
            {"hidden_size": 0},
            {"hidden_size": 16},
            {"vocab_size": 65},
            {"num_attention_heads": 0},
            {"hidden_act": "nonsense"},
            {"dtype": "float99"},
            {"rope_parameters": "x"},
            {"architectures": [3]},
            {"model_type": ["llama"]},
            {"model_type": "nonsense"},
            {"quantization_config": 3},
            {"transformers_weights": "../model.safetensors"},
        ],
        ids=str,
    )
    def test_wrong_values(self, model_folder: Path, change: dict[str, Any]) -> None:
        edit(model_folder / "config.json", lambda config: config | change)
        with pytest.raises(SLEBError) as error:
            SLEBPruner.from_pretrained(model_folder)
        assert str(model_folder) in str(error.value)
        assert "\n" not in str(error.value)

    def test_fewer_blocks_than_the_checkpoint(self, model_folder: Path) -> None:
        edit(model_folder / "config.json", lambda config: config | {"num_hidden_layers": 5})
        with pytest.warns(
            UserWarning, match=r"blocks that its config does not count.*9 weights is model\.layers\.5\."
        ):
            load_model(str(model_folder))


@config_is_damaged
class TestDamagedTokenizer:
    @pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
    @pytest.mark.parametrize("content", [b"", b'{"a": ', b"[]", b"\xff\xfe", b"[" * 100_000])
    def test_no_json(self, model_folder: Path, file: str, content: bytes) -> None:
        (model_folder / file).write_bytes(content)
        with pytest.raises(ModelNotFoundError, match="The tokenizer of .* is damaged .*get its files again, or pass"):
            load_tokenizer(str(model_folder))

    def test_of_no_known_kind(self, model_folder: Path) -> None:
        edit(model_folder / "tokenizer.json", lambda values: values | {"model": {"type": "Nonsense"}})
        with pytest.raises(ModelNotFoundError, match="The tokenizer of .* is damaged"):
            load_tokenizer(str(model_folder))
