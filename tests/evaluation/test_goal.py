"""The target for speed: shares of time, what they let expect, and a measurement beside it."""

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from optimum_sleb import ConfigError, SLEBConfig, SLEBPruner
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.evaluation.goal import goal_of, measured_speed, speeds_of_target
from optimum_sleb.evaluation.scenarios import Scenario, runner
from optimum_sleb.evaluation.time_shares import TimeShares, expected_speedup, measure_block_shares
from optimum_sleb.runtime.ranks import Ranks

from ..families import NUM_BLOCKS, random_ids, tiny_model

IDS = random_ids(3, 16)


@pytest.mark.parametrize("kept", range(1, 30))
def test_blocks_that_are_alike_are_counted(kept: int) -> None:
    shares = TimeShares(blocks=0.9, head=0.1, rest=0.0)
    removed = range(30 - kept)
    assert expected_speedup([0.9 / 30] * 30, removed) == pytest.approx(shares.expected_speedup(30, kept))


class Slow(nn.Module):
    """A block that computes the same for longer, with a weight that tells it from the others."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.more = nn.Parameter(torch.zeros(3))

    def forward(self, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        for _ in range(8):
            self.block(hidden, *args, **kwargs)
        return self.block(hidden, *args, **kwargs)


def test_blocks_of_a_kind_share_their_time_and_others_count_for_themselves(one_thread: None) -> None:
    model = tiny_model()
    model.model.layers[3] = Slow(model.model.layers[3])
    shares = measure_block_shares(model, runner(model, Scenario("prompt", 2, 64)))
    assert len({shares[index] for index in (0, 1, 2, 4, 5)}) == 1
    assert 4 < shares[3] / shares[0] < 18  # nine times, up to the noise of a shared machine
    assert 0.3 < sum(shares) < 1


def goal(model: PreTrainedModel, **values: Any):
    config = SLEBConfig(**values)
    return goal_of(model, find_decoder_stack(model), config, range(1, NUM_BLOCKS - 1), Ranks.alone())


@pytest.mark.long
def test_the_first_depth_that_the_shares_allow(one_thread: None) -> None:
    found = goal(tiny_model(), min_speedup=1.2, speedup_of="prompt")
    values = [found.value_of(range(1, 1 + depth)) for depth in range(5)]
    assert values[0] == 1.0
    assert values == sorted(values)
    assert found.depth(range(1, 5)) == next(depth for depth, value in enumerate(values) if value >= 1.2)
    assert "speed of prompt (1 x 128 tokens, no cache)" in found.record(()).summary()
    assert "generation (4 x 32 tokens, 16 new ones each)" in goal(tiny_model(), min_speedup=1.2).counted


def test_more_than_can_be_is_refused_with_the_nearest(one_thread: None) -> None:
    with pytest.raises(
        ConfigError, match=r"min_speedup=50x cannot be met: without all 4 of the 6 blocks .* it is [12]\."
    ):
        goal(tiny_model(), min_speedup=50.0)


@pytest.mark.long
def test_the_search_ends_there_and_the_report_tells(one_thread: None) -> None:
    warnings.simplefilter("ignore")
    by_number, pruner = SLEBPruner(tiny_model()), SLEBPruner(tiny_model())
    by_number.prune(SLEBConfig(num_blocks_to_remove=4), calibration=IDS)
    pruner.prune(SLEBConfig(min_speedup=1.25, speedup_of="prompt"), calibration=IDS)
    target, depth = pruner.report.target, len(pruner.report.steps)
    assert pruner.report.removed_blocks == by_number.report.removed_blocks[:depth]
    assert (target.name, target.asked, target.before) == ("min_speedup", 1.25, 1.0)
    assert target.reached >= 1.25
    assert pruner.report.speeds == ()  # there is no GPU here
    assert "target min_speedup=1.25x: 1x before, " in pruner.report.summary()


def test_blocks_in_host_memory_have_no_speed_of_their_own() -> None:
    model = tiny_model()
    stack = find_decoder_stack(model)
    object.__setattr__(stack, "loader", object())
    with pytest.raises(ConfigError, match="needs the time of a model that its device holds"):
        goal_of(model, stack, SLEBConfig(min_speedup=1.2), range(1, 5), Ranks.alone())


def test_measured_in_turns_with_the_whole_model_which_stays_as_it_was(one_thread: None) -> None:
    model = tiny_model()
    before = copy.deepcopy(model.state_dict())
    stack, config = find_decoder_stack(model), SLEBConfig(min_speedup=1.2, speedup_of="prompt")
    record = measured_speed(model, stack, config, {1, 2, 3, 4})
    assert (record.scenario, record.unit) == ("prompt", "ms")
    assert record.speedup > 1
    assert len(model.model.layers) == NUM_BLOCKS
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert speeds_of_target(model, stack, config, {1}) == ()  # on a CPU nothing is measured unasked


@pytest.mark.cuda
@pytest.mark.parametrize("of", ["prompt", "generation"])
def test_on_a_gpu_the_report_holds_both(of: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pruner = SLEBPruner(tiny_model(num_hidden_layers=24).to("cuda"))
    pruner.prune(SLEBConfig(min_speedup=1.15, speedup_of=of), calibration=IDS)
    (speed,) = pruner.report.speeds
    assert pruner.report.target.reached >= 1.15
    assert speed.scenario == of
    assert speed.speedup == pytest.approx(pruner.report.target.reached, rel=0.3)
    assert "cuda" in speed.protocol.lower() or "nvidia" in speed.protocol.lower()
