"""What a config computes with: all that may change a loss, alike in every process, and nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, Gemma3Config, LlamaConfig
from transformers.utils.quantization_config import QuantizationMethod

from optimum_sleb.models.fingerprint import loss_relevant_config

from ..families import FAMILIES, tiny_model


@pytest.mark.parametrize("family", FAMILIES)
def test_loaded_again_they_are_the_same(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    model.save_pretrained(tmp_path)
    loaded = loss_relevant_config(AutoModelForCausalLM.from_pretrained(tmp_path).config)
    assert loaded == loss_relevant_config(model.config)
    assert json.loads(json.dumps(loaded)) == loaded


@pytest.mark.parametrize(
    "switches",
    [
        {"use_cache": False},
        {"output_hidden_states": True},
        {"_name_or_path": "elsewhere"},
        {"transformers_version": "5.17.0"},
        {"architectures": ["LlamaForCausalLM"]},
        {"sleb": {"original_num_blocks": 6}},
    ],
)
def test_what_changes_no_loss_is_not_told(switches: dict) -> None:
    config = LlamaConfig()
    for name, value in switches.items():
        setattr(config, name, value)
    assert loss_relevant_config(config) == loss_relevant_config(LlamaConfig())


@pytest.mark.parametrize(
    "settings", [{"rms_norm_eps": 1e-3}, {"hidden_act": "gelu"}, {"attn_implementation": "eager"}]
)
def test_what_changes_a_loss_is_told(settings: dict) -> None:
    assert loss_relevant_config(LlamaConfig(**settings)) != loss_relevant_config(
        LlamaConfig(attn_implementation="sdpa")
    )


def test_a_config_within_a_config_is_told() -> None:
    values = loss_relevant_config(Gemma3Config(text_config={"rms_norm_eps": 1e-3}))
    assert values["text_config"]["rms_norm_eps"] == 1e-3
    assert "use_cache" not in values["text_config"]


def test_values_that_json_does_not_know() -> None:
    config = LlamaConfig()
    config.method = QuantizationMethod.GGUF
    config.precision = torch.bfloat16
    config.places = {"up", "down"}
    config.limits = (float("nan"), float("inf"))
    config.parts = [LlamaConfig(rms_norm_eps=1e-3)]
    config.other = SimpleNamespace()
    values = loss_relevant_config(config)
    assert json.loads(json.dumps(values)) == values
    assert (values["method"], values["precision"], values["places"]) == ("gguf", "torch.bfloat16", ["down", "up"])
    assert (values["limits"], values["parts"][0]["rms_norm_eps"]) == (["nan", "inf"], 1e-3)
    assert values["other"] == "SimpleNamespace"


@pytest.mark.long
def test_a_quantisation_whose_skipped_modules_come_from_a_set() -> None:
    """The order of a set of strings is another in each process."""
    script = (
        "import json, torch; from transformers import BitsAndBytesConfig, LlamaConfig; "
        "from optimum_sleb.models.fingerprint import loss_relevant_config; config = LlamaConfig(); "
        "config.quantization_config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16, "
        "llm_int8_skip_modules=list({'lm_head', 'model.norm', 'model.embed_tokens', 'score'})); "
        "print(json.dumps(loss_relevant_config(config)))"
    )
    told = set()
    for seed in ("1", "2", "3"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        told.add(done.stdout)
    assert len(told) == 1


@pytest.mark.skipif(not hasattr(transformers, "GgufConfig"), reason="transformers before 5.23 has no GgufConfig")
def test_the_place_of_a_gguf_file_is_not_told() -> None:
    values = []
    for file in ("here.gguf", "there.gguf"):
        config = LlamaConfig()
        config.quantization_config = transformers.GgufConfig(gguf_file=file, dequantize=True)
        values.append(loss_relevant_config(config))
    assert values[0] == values[1]
