"""How many rows a step has, and how many steps a healing: as asked, or refused."""

import logging
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainerCallback
from transformers.trainer import DEFAULT_CALLBACKS

from optimum_sleb import ConfigError, heal
from optimum_sleb.healing.budget import Budget
from optimum_sleb.healing.settings import Settings
from optimum_sleb.healing.trainer import HealingArguments, HealingTrainer, checked_arguments
from optimum_sleb.hub.healed import healings_of

from ..families import tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")


def ids_of(rows: int) -> torch.Tensor:
    return torch.randint(3, 64, (rows, 20), generator=torch.Generator().manual_seed(1))


def settings_of(batch_size: int) -> Settings:
    return Settings.of(tiny_model(), "full", None, None, batch_size, 20, "auto", 0)


@given(tokens=st.integers(1, 5000), rows=st.integers(1, 40), length=st.integers(2, 30), batch_size=st.integers(1, 50))
def test_steps_for_tokens_are_those_that_counting_finds(tokens: int, rows: int, length: int, batch_size: int) -> None:
    steps, seen, left = 0, 0, rows
    while seen < tokens:
        taken = min(batch_size, left)
        steps, seen, left = steps + 1, seen + taken * length, (left - taken) or rows
    assert Budget(tokens=tokens).steps_for(rows, rows * length, batch_size) == steps


@pytest.mark.long
@pytest.mark.parametrize(("rows", "batch_size", "micro"), [(10, 4, 16), (10, 4, 3), (10, 6, 4), (3, 4, 2), (7, 7, 2)])
def test_each_row_is_trained_once_in_a_round(rows: int, batch_size: int, micro: int, monkeypatch, caplog) -> None:
    """Also in a last step that the rows do not fill; and the tokens that were asked for are trained, not fewer."""
    seen: list[list[int]] = [[]]
    compute_loss = HealingTrainer.compute_loss

    def counting(self: Any, model: Any, inputs: Any, *arguments: Any, **more: Any) -> Any:
        seen[-1] += [tuple(row) for row in inputs["input_ids"].tolist()]
        return compute_loss(self, model, inputs, *arguments, **more)

    class Steps(TrainerCallback):
        def on_step_end(self, *arguments: Any, **more: Any) -> None:
            seen.append([])

    monkeypatch.setattr(HealingTrainer, "compute_loss", counting)
    monkeypatch.setattr("transformers.trainer.DEFAULT_CALLBACKS", [*DEFAULT_CALLBACKS, Steps])
    ids, model = ids_of(rows), tiny_model()
    with caplog.at_level(logging.WARNING, "optimum_sleb"):
        heal(
            model, method="full", data=ids, batch_size=batch_size, window_length=20, tokens=2 * rows * 20,
            per_device_train_batch_size=micro, disable_tqdm=True,
        )  # fmt: skip
    steps = seen[:-1]
    a_round = [min(batch_size, rows - start) for start in range(0, rows, batch_size)]
    assert [len(step) for step in steps] == a_round * 2
    once = [row for step in steps[: len(a_round)] for row in step]
    assert sorted(once) == sorted(map(tuple, ids.tolist()))
    (healing,) = healings_of(model)
    assert healing.tokens == 2 * rows * 20
    assert ("Each step has only the 3 rows of the data; give more" in caplog.text) is (rows < batch_size)


@pytest.mark.parametrize(
    ("processes", "batch_size", "remedy"), [(3, 16, "15 or 18"), (2, 1, "2"), (8, 12, "8 or 16"), (5, 4, "5")]
)
def test_rows_that_processes_cannot_share(processes: int, batch_size: int, remedy: str, monkeypatch) -> None:
    monkeypatch.setattr(HealingArguments, "world_size", processes)
    sentence = f"{processes} processes cannot share batch_size={batch_size}; choose {remedy}."
    with pytest.raises(ConfigError) as error:
        checked_arguments(settings_of(batch_size), tiny_model(), {})
    assert str(error.value) == sentence


@pytest.mark.parametrize(("processes", "batch_size"), [(1, 7), (2, 16), (4, 12), (3, 3)])
@pytest.mark.parametrize("micro", [1, 2, 3, 16])
def test_rows_that_they_can(processes: int, batch_size: int, micro: int, monkeypatch) -> None:
    monkeypatch.setattr(HealingArguments, "world_size", processes)
    arguments = checked_arguments(settings_of(batch_size), tiny_model(), {"per_device_train_batch_size": micro})
    at_a_time = arguments.per_device_train_batch_size
    assert at_a_time <= micro
    assert at_a_time * arguments.gradient_accumulation_steps * processes == batch_size


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "4", None])
def test_rows_of_a_pass(value: Any) -> None:
    with pytest.raises(ConfigError, match="per_device_train_batch_size must be a whole number of at least 1; got"):
        checked_arguments(settings_of(4), tiny_model(), {"per_device_train_batch_size": value})


@pytest.mark.parametrize(
    "option",
    [{"dataloader_drop_last": True}, {"accelerator_config": {"split_batches": True}}, {"parallelism_config": 1}],
)
def test_what_would_leave_rows_out(option: dict) -> None:
    with pytest.raises(ConfigError, match=f"no argument '{next(iter(option))}' .* can be set; leave it out"):
        heal(tiny_model(), data=ids_of(4), **option)
