"""Two threads, each with its own model: what one does is not seen by the other."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from optimum_sleb import SLEBConfig, SLEBPruner, UnsupportedModelError
from optimum_sleb.runtime.turns import one_at_a_time

from .families import random_ids, tiny_model

CONFIG = SLEBConfig(num_blocks_to_remove=2, window_length=20)
IDS = random_ids(3, 20)
FAMILIES = {"llama": torch.float32, "gpt2": torch.bfloat16}


def prune(model: PreTrainedModel) -> tuple:
    pruner = SLEBPruner(model)
    pruner.prune(CONFIG, calibration=IDS)
    return [(step.block, step.candidate_losses) for step in pruner.report.steps], pruner.model.state_dict()


def models() -> list[PreTrainedModel]:
    """Fresh models, not made by the threads: transformers itself lets no two threads make models."""
    return [tiny_model(family, dtype=dtype) for family, dtype in FAMILIES.items()]


def same(one: tuple, other: tuple) -> bool:
    return one[0] == other[0] and all(weight.equal(other[1][name]) for name, weight in one[1].items())


def shared_by_the_process() -> tuple:
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        nn.Module.register_parameter,
        nn.init.normal_,
        PreTrainedModel.init_weights,
        torch.is_grad_enabled(),
    )


@pytest.mark.reliability("two threads prune, each its own model", lost="nothing: the same blocks and losses as alone")
@pytest.mark.parametrize("times", [1, pytest.param(20, marks=[pytest.mark.long, pytest.mark.tries(20)])])
def test_two_threads_prune_as_one_does(times: int) -> None:
    alone, before = list(map(prune, models())), shared_by_the_process()
    with ThreadPoolExecutor(2) as threads:
        for _ in range(times):
            assert all(map(same, threads.map(prune, models()), alone))
            assert shared_by_the_process() == before
    model = AutoModelForCausalLM.from_config(tiny_model().config)
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


def test_a_thread_says_what_it_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    is_in, may_leave = threading.Event(), threading.Event()

    @one_at_a_time
    def work() -> None:
        is_in.set()
        may_leave.wait(10)

    first = threading.Thread(target=work, name="first")
    first.start()
    assert is_in.wait(10)
    second = threading.Thread(target=prune, args=[tiny_model()], name="second")
    with caplog.at_level(logging.WARNING):
        second.start()
        while not caplog.messages:
            assert second.is_alive()
            second.join(0.01)
        assert second.is_alive()
    may_leave.set()
    second.join()
    first.join()
    assert "in thread 'second' waits until" in caplog.messages[0]
    assert "work in thread 'first' is done" in caplog.messages[0]


def test_an_error_ends_the_turn() -> None:
    with pytest.raises(UnsupportedModelError):
        SLEBPruner(nn.Linear(2, 2))
    with ThreadPoolExecutor(1) as threads:
        threads.submit(SLEBPruner, tiny_model()).result(timeout=60)


def test_a_function_may_call_another_one() -> None:
    pruner = one_at_a_time(lambda: SLEBPruner(tiny_model()))()
    assert pruner.check().removable == tuple(range(6))
