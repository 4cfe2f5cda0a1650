"""Models that are quantised while they are loaded: pruned as they are, saved, and read again."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from optimum_sleb import SLEBConfig, SLEBPruner, UnsupportedModelError
from optimum_sleb.blocks.forward import evaluating, logits_of
from optimum_sleb.blocks.packed import packed_modules

from ..families import random_ids, tiny_model
from ..test_equivalence import skipped_logits

quantised_while_loaded = pytest.mark.reliability(
    "a model that bitsandbytes (8 bits) or torchao quantise while it is loaded",
    lost="nothing: shortened == reloaded == skipped, exact == reference",
)

IDS = random_ids(6, 16)


def config_of(method: str) -> Any:
    if method == "torchao":
        quantization = pytest.importorskip("torchao.quantization")
        return transformers.TorchAoConfig(quantization.Int8WeightOnlyConfig())
    pytest.importorskip("bitsandbytes")
    if method == "bitsandbytes, 8 bits":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dense")
    tiny_model("llama", hidden_size=64, intermediate_size=128, head_dim=16).save_pretrained(path)
    return path


ON_CUDA = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
METHODS = [
    ("bitsandbytes, 8 bits", "cpu"),
    ("torchao", "cpu"),
    *(
        pytest.param(
            method,
            "cuda",
            marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
        )
        for method in ("bitsandbytes, 8 bits", "bitsandbytes, 4 bits", "torchao")
    ),
]


@pytest.mark.long
@quantised_while_loaded
@pytest.mark.filterwarnings("ignore:No tokenizer")
@pytest.mark.parametrize(("method", "device"), METHODS)
def test_shortened_is_skipped_is_reloaded(method: str, device: str, folder: Path, tmp_path: Path) -> None:
    pruner = SLEBPruner.from_pretrained(folder, quantization_config=config_of(method), device_map=device)
    packed = set(packed_modules(pruner.model))
    assert any(name.startswith("model.layers.5.") for name in packed)
    expected = skipped_logits(pruner.model.eval(), [2, 3], IDS)
    model = pruner.remove([2, 3])
    with evaluating(model):
        torch.testing.assert_close(logits_of(model, IDS), expected)
    pruner.save_pretrained(tmp_path / "pruned")
    assert "was quantised while it was loaded, so no command" in (tmp_path / "pruned" / "README.md").read_text()
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "pruned", device_map=device)
    assert len(packed_modules(reloaded)) == len(packed) * 4 // 6
    with evaluating(reloaded):
        torch.testing.assert_close(logits_of(reloaded, IDS), expected)


@pytest.mark.long
@quantised_while_loaded
@pytest.mark.filterwarnings("ignore:No tokenizer")
@pytest.mark.parametrize(("method", "device"), METHODS)
def test_search(method: str, device: str, folder: Path) -> None:
    reports = []
    for search in ("exact", "reference"):
        pruner = SLEBPruner.from_pretrained(folder, quantization_config=config_of(method), device_map=device)
        config = SLEBConfig(num_blocks_to_remove=2, search=search, compensate="during", batch_size=1)
        pruner.prune(config, calibration=IDS)
        reports.append(pruner.report)
    exact, reference = reports
    assert exact.removed_blocks == reference.removed_blocks
    assert exact.perplexity_after == pytest.approx(reference.perplexity_after, rel=1e-2)
    assert {cut.kept for cut in exact.compensation.cuts} == {None}  # nothing can be folded into packed weights


@pytest.mark.filterwarnings("ignore:No tokenizer")
def test_a_packed_checkpoint_is_refused_with_the_remedy(folder: Path, tmp_path: Path) -> None:
    packed = AutoModelForCausalLM.from_pretrained(folder, quantization_config=config_of("bitsandbytes, 8 bits"))
    packed.save_pretrained(tmp_path / "packed")
    with pytest.raises(UnsupportedModelError, match=r"\(bitsandbytes\), .*; prune the checkpoint that it was made"):
        SLEBPruner.from_pretrained(tmp_path / "packed")


@pytest.mark.filterwarnings("ignore:No tokenizer")
def test_weights_that_change_when_they_are_saved_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=config_of("torchao"))
    state_dict = model.state_dict

    def drifting() -> Any:
        with torch.no_grad():
            model.model.norm.weight += 0.1
        return state_dict()

    monkeypatch.setattr(model, "state_dict", drifting)
    with pytest.raises(UnsupportedModelError, match="change when they are saved from this device; load it on a GPU"):
        SLEBPruner(model)
