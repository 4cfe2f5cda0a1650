"""Models that accelerate has spread over devices: pruned, saved and loaded as those on one device.

Without GPUs the hooks are those of a spread model, but all devices are the CPU.
"""

from pathlib import Path

import pytest
import torch
from accelerate import dispatch_model
from accelerate.hooks import AlignDevicesHook, SequentialHook, add_hook_to_module
from transformers import AutoModelForCausalLM, PreTrainedModel

from optimum_sleb import SLEBConfig, SLEBPruner
from optimum_sleb.blocks.devices import hooks_of, moves_weights
from optimum_sleb.errors import UnsupportedModelError

from ..families import NUM_BLOCKS, random_ids, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")
TWO_GPUS = [
    pytest.mark.cuda,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two CUDA devices"),
]


def spread(family: str, devices: tuple[int | str, int | str]) -> PreTrainedModel:
    """A tiny model, the lower half of its blocks on one device and the rest on another."""
    model = tiny_model(family)
    (path, _), *_ = [
        (path, module) for path, module in model.named_modules() if isinstance(module, torch.nn.ModuleList)
    ]
    outer, _, last = path.rpartition(".")
    around = [f"{outer}.{name}" for name, _ in model.get_submodule(outer).named_children() if name != last]
    around += [name for name, _ in model.named_children() if name != outer]
    device_map = dict.fromkeys(around, devices[0])
    device_map |= {f"{path}.{block}": devices[block >= NUM_BLOCKS // 2] for block in range(NUM_BLOCKS)}
    model = dispatch_model(model, device_map, main_device=devices[0], force_hooks=True)
    model.hf_device_map = device_map
    return model


@pytest.mark.long
@pytest.mark.parametrize("devices", [("cpu", "cpu"), pytest.param((0, 1), marks=TWO_GPUS)])
@pytest.mark.parametrize("recipe", [{}, {"compensate": "during"}, {"search": "reference"}], ids=str)
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_a_spread_model(tmp_path: Path, family: str, recipe: dict[str, str], devices: tuple[int | str, ...]) -> None:
    config = SLEBConfig(num_blocks_to_remove=2, **recipe)
    windows = list(random_ids(6, 20))
    whole = SLEBPruner(tiny_model(family).to(devices[0]))
    whole.prune(config, calibration=windows)
    pruner = SLEBPruner(spread(family, devices))
    model = pruner.prune(config, calibration=windows)
    assert pruner.report.removed_blocks == whole.report.removed_blocks
    for step, expected in zip(pruner.report.steps, whole.report.steps, strict=True):
        assert step.candidate_losses == pytest.approx(expected.candidate_losses, rel=1e-4)
    assert hooks_of(model)
    logits = model(windows[0][None].to(devices[0])).logits.cpu()
    folder = pruner.save_pretrained(tmp_path / "out")
    again = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(again(windows[0][None]).logits, logits, rtol=1e-3, atol=1e-4)


def test_the_map_of_devices_follows_the_blocks() -> None:
    model = spread("llama", ("cpu", "cpu"))
    for name, number in zip([f"model.layers.{block}" for block in range(NUM_BLOCKS)], range(NUM_BLOCKS), strict=True):
        model.hf_device_map[name] = number
    SLEBPruner(model).remove([1, 4])
    placed = {name: device for name, device in model.hf_device_map.items() if name.startswith("model.layers.")}
    assert placed == {"model.layers.0": 0, "model.layers.1": 2, "model.layers.2": 3, "model.layers.3": 5}


@pytest.mark.long
def test_a_second_run_on_a_spread_model() -> None:
    pruner = SLEBPruner(spread("llama", ("cpu", "cpu")))
    pruner.remove([2])
    pruner.remove([4])
    ids = random_ids(1, 12)
    expected = SLEBPruner(tiny_model())
    torch.testing.assert_close(pruner.model(ids).logits, expected.remove([2, 4])(ids).logits)


@pytest.mark.parametrize("sequential", [False, True])
def test_weights_that_a_hook_brings(llama: PreTrainedModel, sequential: bool) -> None:
    bringing = AlignDevicesHook(execution_device="cpu", offload=True)
    hook = SequentialHook(AlignDevicesHook(execution_device="cpu"), bringing) if sequential else bringing
    assert moves_weights(hook)
    add_hook_to_module(llama.model.layers[2], AlignDevicesHook(execution_device="cpu"))
    llama.model.layers[2]._hf_hook = hook
    with pytest.raises(UnsupportedModelError, match=r"brings them when they are needed \(hook on model\.layers\.2\)"):
        SLEBPruner(llama)
