"""A healing that an error or an interrupt ends leaves the model as it was, and one that ends well does not change."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import Linear
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel, TrainerCallback
from transformers.trainer import DEFAULT_CALLBACKS

from optimum_sleb import heal
from optimum_sleb.blocks.state import restored_on_error

from ..families import tiny_model
from ..test_state import about, odd_model, state_of

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = torch.randint(3, 64, (32, 20), generator=torch.Generator().manual_seed(1))
QUICK: dict[str, Any] = {"data": IDS, "batch_size": 4, "window_length": 20, "steps": 4, "disable_tqdm": True}
MOMENTS = [("on_init_end", 1), ("on_train_begin", 1), ("on_step_begin", 1), ("on_step_end", 3), ("on_save", 2)]
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"method": "lora", "rank": 2},
    "lora, recomputing": {"method": "lora", "rank": 2, "gradient_checkpointing": True},
    "distill": {"method": "distill", "rank": 2},
    "full": {"method": "full"},
    "full, recomputing": {"method": "full", "gradient_checkpointing": True},
}


def end_at(monkeypatch: pytest.MonkeyPatch, event: str, time: int, error: BaseException) -> None:
    """Raise an error when the Trainer tells of an event for so many times."""
    told = []

    def on_event(*arguments: Any, **more: Any) -> None:
        told.append(event)
        if len(told) == time:
            raise error

    callback = type("Ends", (TrainerCallback,), {event: on_event})
    monkeypatch.setattr("transformers.trainer.DEFAULT_CALLBACKS", [*DEFAULT_CALLBACKS, callback])


def values_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return list(one) == list(other) and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def whole_state_of(model: PreTrainedModel) -> tuple:
    """All but the addresses of weights, which a change of their type moves."""
    modules = {
        key: (*rest, [(number, dtype, trained) for number, dtype, _, trained in tensors])
        for key, (*rest, tensors) in state_of(model).items()
    }
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    buffers = [(name, buffer.dtype) for name, buffer in model.named_buffers()]
    return modules, attributes, buffers, about(model), model.config.to_dict()


@pytest.mark.long
@pytest.mark.parametrize("error", [RuntimeError("no space left"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize(
    ("how", "moment"),
    [(how, moment) for how in METHODS for moment in (MOMENTS if how in ("lora", "full") else MOMENTS[3:4])],
    ids=str,
)
def test_it_is_as_it_was(how: str, moment: Any, error: Any, monkeypatch, tmp_path: Path) -> None:
    model, more = odd_model(dtype=torch.bfloat16), {**QUICK, **METHODS[how]}
    if how == "distill":
        more["teacher"] = tiny_model(seed=1)
    state, values = whole_state_of(model), values_of(model)
    with monkeypatch.context() as patched, pytest.raises(type(error)):
        end_at(patched, *moment, error)
        heal(model, output_dir=tmp_path / "run", **more)
    assert whole_state_of(model) == state
    assert all(parameter.grad is None for parameter in model.parameters())
    adapted = "rank" in more
    assert same(values, values_of(model)) is (adapted or moment in MOMENTS[:3])
    if not adapted:
        heal(model, **more)
        return
    # From the same weights the next one goes on, to the same end.
    heal(model, output_dir=tmp_path / "run", resume=True, **more)
    undisturbed = odd_model(dtype=torch.bfloat16)
    heal(undisturbed, **more)
    assert same(values_of(undisturbed), values_of(model))


@pytest.mark.long
def test_a_quantised_model_is_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PEFT puts its norms into float32 before an adapter is trained."""
    pytest.importorskip("bitsandbytes")
    tiny_model(dtype=torch.bfloat16).save_pretrained(tmp_path / "pruned")
    four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "pruned", quantization_config=four_bits, device_map="cpu", dtype=torch.bfloat16
    )
    state, values = whole_state_of(model), values_of(model)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        end_at(patched, "on_step_end", 2, KeyboardInterrupt())
        heal(model, rank=2, gradient_checkpointing=True, **QUICK)
    assert whole_state_of(model) == state
    assert same(values, values_of(model))
    heal(model, rank=2, **QUICK)


@pytest.mark.long
def test_an_interrupt_while_the_adapter_is_merged_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    model, undisturbed = tiny_model(dtype=torch.bfloat16), tiny_model(dtype=torch.bfloat16)
    heal(undisturbed, rank=2, **QUICK)
    merge, merged = Linear.merge, []

    def interrupted(self: Any, *arguments: Any, **more: Any) -> None:
        merge(self, *arguments, **more)
        merged.append(self)
        if len(merged) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Linear, "merge", interrupted)
    with pytest.raises(KeyboardInterrupt):
        heal(model, rank=2, **QUICK)
    assert same(values_of(undisturbed), values_of(model))
    assert whole_state_of(model)[1:] == whole_state_of(undisturbed)[1:]


def test_an_interrupt_while_it_is_restored_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(dtype=torch.bfloat16)
    before, values = whole_state_of(model), values_of(model)
    requires_grad, told = torch.Tensor.requires_grad_, []

    def interrupted(self: torch.Tensor, value: bool = True) -> torch.Tensor:
        told.append(self)
        if len(told) == 7:
            raise KeyboardInterrupt
        return requires_grad(self, value)

    with pytest.raises(KeyboardInterrupt), restored_on_error(model, trains=True):
        model.float().train()
        monkeypatch.setattr(torch.Tensor, "requires_grad_", interrupted)
        raise RuntimeError
    assert whole_state_of(model) == before
    assert same(values, values_of(model))
