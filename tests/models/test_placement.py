"""Where a search computes: found out before it starts, and told."""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from optimum_sleb import SLEBConfig, SLEBPruner
from optimum_sleb.blocks import packed
from optimum_sleb.errors import ConfigError, UnsupportedModelError
from optimum_sleb.models.loading import load_without_weights
from optimum_sleb.models.placement import Offload, Placement, choose_placement, device_to_load_on
from optimum_sleb.runtime import memory
from optimum_sleb.runtime.memory import WORKING_MEMORY, too_large, weight_bytes
from optimum_sleb.runtime.ranks import Ranks

from ..families import random_ids, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = SLEBConfig(num_blocks_to_remove=2)
ALONE = Ranks.alone()


def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were one. Nothing is brought there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)


@pytest.mark.long
@pytest.mark.parametrize("compensate", ["no", "during"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_offloaded_equals_resident(tmp_path: Path, family: str, compensate: str) -> None:
    config = SLEBConfig(num_blocks_to_remove=2, compensate=compensate)
    windows = list(random_ids(6, 20))
    reports, logits = [], []
    for options in ({}, {"device": "cpu", "offload": "cpu"}):
        pruner = SLEBPruner(tiny_model(family))
        model = pruner.prune(config, calibration=windows, progress_dir=tmp_path / str(len(reports)), **options)
        pruner.save_pretrained(tmp_path / str(len(reports)))
        reports.append(pruner.report)
        logits.append(model(windows[0][None]).logits)
    resident, offloaded = reports
    assert offloaded.removed_blocks == resident.removed_blocks
    for step, expected in zip(offloaded.steps, resident.steps, strict=True):
        assert step.candidate_losses == pytest.approx(expected.candidate_losses, rel=1e-5)
    assert resident.search.offload is None
    assert offloaded.search.offload == "asked for (offload='cpu')"
    assert "blocks came to cpu one at a time: asked for (offload='cpu')" in offloaded.summary()
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-3, atol=1e-3)


def test_a_model_that_does_not_fit_is_offloaded(llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    small = weight_bytes(llama) + WORKING_MEMORY - 1
    monkeypatch.setattr(memory, "memory_left", lambda device: small)
    reason = too_large(weight_bytes(llama), torch.device("cuda", 0))
    assert reason == "the weights take 0.0 GB, and cuda:0 has 1.6 GB left"
    one_gpu(monkeypatch)
    assert choose_placement(llama, CONFIG, "cuda", "auto", ALONE) == Placement(torch.device("cuda", 0), reason)
    assert llama.device.type == "cpu"


@pytest.mark.long
@pytest.mark.parametrize("left", [10**6, 10**12])
def test_a_whole_run_under_a_small_limit(model_folder: Path, monkeypatch: pytest.MonkeyPatch, left: int) -> None:
    expected = SLEBPruner.from_pretrained(model_folder)
    expected.prune(CONFIG, calibration=list(random_ids(6, 20)))
    monkeypatch.setattr(memory, "memory_left", lambda device: left)
    pruner = SLEBPruner.from_pretrained(model_folder)
    before = (model_folder / "model.safetensors").read_bytes()
    pruner.prune(CONFIG, calibration=list(random_ids(6, 20)), device="cpu")
    assert (pruner.report.search.offload is not None) == (left == 10**6)
    assert pruner.report.removed_blocks == expected.report.removed_blocks
    for step, same in zip(pruner.report.steps, expected.report.steps, strict=True):
        assert step.candidate_losses == pytest.approx(same.candidate_losses, rel=1e-6)
    assert (model_folder / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(("room", "offload", "expected"), [
    (0, "auto", "cuda"), (-1, "auto", "cpu"), (0, "cpu", "cpu"), (-1, "no", "cuda")
])  # fmt: skip
def test_where_it_is_loaded(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, room: int, offload: Offload, expected: str
) -> None:
    size = weight_bytes(load_without_weights(str(model_folder)))
    monkeypatch.setattr(memory, "memory_left", lambda device: size + WORKING_MEMORY + room)
    one_gpu(monkeypatch)
    assert device_to_load_on(str(model_folder), CONFIG, offload, device_map="cuda", dtype="auto") == expected


@pytest.mark.parametrize("dtype", ["auto", "bfloat16", torch.float16])
def test_the_size_of_a_model_is_known_before_it_is_loaded(model_folder: Path, dtype: str | torch.dtype) -> None:
    loaded = SLEBPruner.from_pretrained(model_folder, dtype=dtype).model
    assert weight_bytes(load_without_weights(str(model_folder), dtype=dtype)) == weight_bytes(loaded)
    copies = 0 if loaded.dtype == torch.float32 else 4 * loaded.num_parameters()
    assert weight_bytes(loaded, torch.float32) == weight_bytes(loaded) + copies


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
class TestRefusals:
    @pytest.mark.parametrize(("device", "offload", "message"), [
        (None, "cpu", "offload='cpu' lets a GPU compute .* there is none here"),
        ("cuda", "auto", "device='cuda' was asked for, but PyTorch finds no GPU"),
        ("gpu", "auto", "There is no device 'gpu'"),
        (None, "disk", "offload must be one of auto, cpu, no; got 'disk'"),
    ])  # fmt: skip
    def test_devices(self, llama: PreTrainedModel, device: str | None, offload: Offload, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            SLEBPruner(llama).prune(CONFIG, calibration=list(random_ids(2, 20)), device=device, offload=offload)

    def test_a_device_map_without_that_device(self) -> None:
        with pytest.raises(ConfigError, match="device='cuda:1' was asked for, but PyTorch finds no GPU"):
            SLEBPruner.from_pretrained("anything", device_map="cuda:1")

    def test_the_reference_block_by_block(self, llama: PreTrainedModel) -> None:
        config = SLEBConfig(num_blocks_to_remove=2, search="reference")
        with pytest.raises(ConfigError, match="use search='exact'"):
            SLEBPruner(llama).prune(config, calibration=list(random_ids(2, 20)), device="cpu", offload="cpu")


def test_a_model_on_another_device(llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(llama), "device", torch.device("cuda", 1))
    with pytest.raises(ConfigError, match="lies on cuda:1, and its blocks .* load it there"):
        choose_placement(llama, CONFIG, "cpu", "auto", ALONE)
    assert choose_placement(llama, CONFIG, None, "auto", ALONE) == Placement()


def test_packed_weights(llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "packed_modules", lambda model: {"model.layers.0.mlp.up_proj": None})
    with pytest.raises(UnsupportedModelError, match="packed weights cannot be brought to cpu one block at a time"):
        choose_placement(llama, CONFIG, "cpu", "cpu", ALONE)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_small_limit_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = list(random_ids(6, 20))
    reports = []
    for left in (10**12, 10**6):
        monkeypatch.setattr(memory, "memory_left", lambda device, left=left: left)
        pruner = SLEBPruner(tiny_model())
        pruner.prune(CONFIG, calibration=windows, device="cuda")
        reports.append(pruner.report)
    assert reports[1].search.offload.startswith("the weights take 0.0 GB")
    assert reports[1].removed_blocks == reports[0].removed_blocks
    assert pruner.model.device.type == "cpu"
