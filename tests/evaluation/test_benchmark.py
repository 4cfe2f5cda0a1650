from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from transformers import PreTrainedModel

from optimum_sleb import ConfigError, Scenario, SLEBPruner, SpeedRecord, benchmark
from optimum_sleb.evaluation.scenarios import paper_scenarios, runner
from optimum_sleb.evaluation.speeds import ModelSpeed, Speed, speed_table
from optimum_sleb.evaluation.time_shares import TimeShares, measure_time_shares
from optimum_sleb.evaluation.timing import Timing, time_in_turns

from .. import mishaps
from ..families import FAMILIES, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPT, GENERATION = Scenario("prompt", 1, 32), Scenario("generation", 2, 8, 3)
SPEED = Speed(
    Scenario("generation", 64, 64, 128),
    "bfloat16 on a card",
    ModelSpeed(Timing((1.0, 1.2, 1.1), 10**9), 24, 2 * 10**9, TimeShares(0.7, 0.2, 0.1)),
    ModelSpeed(Timing((1.32, 1.32, 1.3), 10**9), 30, 3 * 10**9, TimeShares(0.8, 0.15, 0.05, 0.02)),
)


@pytest.fixture
def pruned() -> PreTrainedModel:
    return SLEBPruner(tiny_model()).remove([2, 3])


def test_turns_are_taken() -> None:
    turns: list[str] = []
    runs = [lambda: turns.append("a"), lambda: turns.append("b")]
    timings = time_in_turns(runs, torch.device("cpu"), repeats=3, warm_up=2)
    assert "".join(turns) == "aabb" + "ababab"
    assert all(len(timing.seconds) == 3 and timing.peak_bytes is None for timing in timings)
    timing = Timing((3.0, 1.0, 2.0, 5.0, 4.0))
    assert (timing.median, timing.spread, Timing((1.0,)).spread) == (3.0, (2.0, 4.0), (1.0, 1.0))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_architecture_is_timed(family: str) -> None:
    model = tiny_model(family)
    for speed in benchmark(model, scenarios=[PROMPT, GENERATION], repeats=1, warm_up=1):
        assert speed.pruned.num_blocks == 6
        assert speed.dense is None
        parts = speed.pruned.parts
        assert 0 < parts.blocks < 1
        assert 0 < parts.head < 1
        assert parts.blocks + parts.head + parts.rest == pytest.approx(1)


def test_generation_gives_all_tokens_whatever_ends_a_text(llama: PreTrainedModel) -> None:
    # The model says the end of text at once, wherever it may.
    llama.get_output_embeddings().weight.data[llama.config.eos_token_id] = 100.0
    greedy = runner(llama, GENERATION)()
    static = runner(llama, replace(GENERATION, static_cache=True))()
    assert greedy.shape == (2, 11)
    assert torch.equal(greedy, static)


@mishaps.measuring_is_interrupted
def test_dense_and_pruned(llama: PreTrainedModel, pruned: PreTrainedModel, tmp_path: Path, interrupted) -> None:
    llama.train()
    options = {"scenarios": [PROMPT, GENERATION], "repeats": 3, "progress_dir": tmp_path}
    measured = interrupted(2)
    with pytest.raises(KeyboardInterrupt):
        benchmark(pruned, llama, **options)
    assert llama.training
    speeds = benchmark(pruned, llama, **options)
    assert len(measured) == 3, "the prompt was measured before the interruption"
    assert benchmark(pruned, llama, **options) == speeds
    assert len(measured) == 3
    for speed in speeds:
        assert speed.ideal == 1.5
        assert speed.record().speedup == pytest.approx(speed.speedup)
    assert speeds[0].record().protocol == "1 x 32 tokens, no cache, float32 on CPU with 1 threads"
    assert len(speed_table(speeds).splitlines()) == 4


def test_what_is_told() -> None:
    record = SPEED.record()
    assert (record.unit, record.before, record.after) == ("tokens/s", 64 * 128 / 1.32, 64 * 128 / 1.1)
    assert record.after_spread == (64 * 128 / 1.15, 64 * 128 / 1.05)
    assert record.speedup == SPEED.speedup == 1.2
    assert (record.after_peak_bytes, record.before_peak_bytes) == (3 * 10**9, 4 * 10**9)
    assert SPEED.expected == pytest.approx(1 / (0.2 + 0.8 * 24 / 30))
    assert SPEED.explanation() == (
        "generation, 64 x 64 tokens, 128 new ones each: 1.20x of 1.25x (30/24 blocks). The dense model spends 80% of "
        "its time in the blocks, 15% in the head, 5% elsewhere, by which 1.19x are to be expected; its GPU waits for "
        "launches 2% of the time."
    )
    assert [line.split()[-3:] for line in speed_table([SPEED]).splitlines()[1:]] == [
        ["(7,123.5,", "7,801.9)", "1.20x"],
        ["4.000", "3.000", "1.33x"],
        ["3.000", "2.000", "1.50x"],
    ]
    alone = replace(SPEED, dense=None)
    assert (alone.explanation(), alone.speedup, alone.ideal, alone.expected) == ("", None, None, None)
    assert len(speed_table([alone]).splitlines()) == 4
    compiled = replace(SPEED, dense=replace(SPEED.dense, parts=None))
    assert compiled.explanation().endswith("1.20x of 1.25x (30/24 blocks).")


@pytest.mark.parametrize("scenario", [Scenario("prompt", 1, 65), Scenario("generation", 2, 60, 5)])
def test_more_than_a_models_positions(scenario: Scenario) -> None:
    model = tiny_model("gpt2", n_positions=64)
    with pytest.raises(ConfigError, match="65 positions are more than the 64 of GPT2LMHeadModel; take fewer tokens"):
        runner(model, scenario)


def test_the_papers_scenarios(llama: PreTrainedModel) -> None:
    llama.config.max_position_embeddings = 4096
    on_gpu = mock.Mock(config=llama.config, device=torch.device("cuda"))
    assert paper_scenarios(on_gpu, (1, 8)) == (
        Scenario("prompt", 1, 2048),
        Scenario("generation", 1, 64, 128),
        Scenario("generation", 8, 64, 128),
    )
    assert [scenario.protocol for scenario in paper_scenarios(llama)] == [
        "1 x 256 tokens, no cache",
        "4 x 32 tokens, 16 new ones each",
    ]
    compiled = Scenario("generation", 1, 8, 2, compile=True)
    assert compiled.protocol == "1 x 8 tokens, 2 new ones each, static cache, compiled"


@pytest.mark.long
def test_a_prompt_is_compiled(llama: PreTrainedModel, traced_only: None) -> None:
    scenario = replace(PROMPT, compile=True)
    (speed,) = benchmark(llama, scenarios=[scenario], repeats=1)
    assert speed.pruned.parts is None
    assert torch.allclose(runner(llama.eval(), scenario)(), runner(llama, PROMPT)(), atol=1e-5)


def test_refusals(llama: PreTrainedModel) -> None:
    with pytest.raises(ConfigError, match="do not compare: bfloat16 on CPU .* against float32 on CPU .*; load them"):
        benchmark(llama, tiny_model(dtype=torch.bfloat16))
    with pytest.raises(ConfigError, match="repeats and warm_up must be at least 1, got 0 and 2"):
        benchmark(llama, repeats=0)
    with pytest.raises(ConfigError, match="batch_size must be at least 1, got 0"):
        Scenario("prompt", 0, 8)
    for wrong in (("prompt", 1, 8, 2), ("generation", 1, 8)):
        with pytest.raises(ConfigError, match="Generation needs at least one new token, and a prompt alone has none"):
            Scenario(*wrong)
    with pytest.raises(ConfigError, match="compiles generation on a GPU only"):
        benchmark(llama, scenarios=[replace(GENERATION, compile=True)])
    with pytest.raises(ValueError, match="The speed of prompt is 0.0 ms, which is no result"):
        SpeedRecord("prompt", "", "ms", 0.0)


def test_parts_leave_nothing_behind(llama: PreTrainedModel) -> None:
    measure_time_shares(llama, runner(llama, PROMPT))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in llama.modules())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu() -> None:
    models = [tiny_model().to("cuda"), tiny_model(seed=1).to("cuda")]
    static = replace(GENERATION, static_cache=True)
    for speed in benchmark(*models, [PROMPT, GENERATION, static], repeats=2):
        assert speed.pruned.timing.peak_bytes > 0
        assert 0 < speed.dense.parts.idle < 1
