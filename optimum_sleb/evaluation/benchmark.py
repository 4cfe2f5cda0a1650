"""The benchmark: time a model, alone or in turns with its dense model."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ..blocks.forward import evaluating
from ..blocks.shortening import num_blocks_of
from ..errors import ConfigError, OutOfMemoryError
from ..models.fingerprint import model_fingerprint
from ..runtime.memory import ran_out_of_memory
from ..runtime.turns import one_at_a_time
from ..version import versions
from .scenarios import Scenario, paper_scenarios, runner
from .speeds import ModelSpeed, Speed
from .store import MeasurementStore
from .time_shares import TimeShares, measure_time_shares
from .timing import Timing, time_in_turns

# The shares of the time are measured over at most this many new tokens; a longer generation has much the same.
_NEW_TOKENS = 32


@one_at_a_time
def benchmark(
    model: PreTrainedModel,
    baseline: PreTrainedModel | None = None,
    scenarios: Sequence[Scenario] = (),
    *,
    repeats: int | None = None,
    warm_up: int = 2,
    progress_dir: str | Path | None = None,
) -> tuple[Speed, ...]:
    """Time a model, and its dense model in turns with it, so that a drift of the machine affects both alike.

    Args:
        model: A causal language model, dense or shortened.
        baseline: The dense model to compare it with, on the same device and in the same precision; `None` times
            `model` alone.
        scenarios: The scenarios to run. Empty takes the paper's: one prompt of 2048 tokens without a cache, and 128
            new tokens for each of 64 prompts of 64 tokens. On a CPU they are smaller.
        repeats: How often each model is timed in each scenario; `None` takes 20 for a prompt and 5 for generation (5
            and 3 on a CPU).
        warm_up: How often each model runs before it is timed.
        progress_dir: Folder in which each finished scenario is stored. A later call with the same arguments reads the
            finished scenarios from it and measures only the others.

    Returns:
        One `Speed` per scenario, in the order of the scenarios.

    Raises:
        ConfigError: If the models are on different devices or in different precisions, or `repeats` or `warm_up` is
            below 1.
        OutOfMemoryError: If the device runs out of memory.
        OutputFolderError: If `progress_dir` cannot be written.

    Example:
        ```python
        for speed in benchmark(pruned, dense):
            print(f"{speed.speedup:.2f}x of {speed.ideal:.2f}x. {speed.explanation()}")
        ```
    """
    models = [model, *([] if baseline is None else [baseline])]
    _check(models, repeats, warm_up)
    store = MeasurementStore(progress_dir)
    of_models: dict[str, Any] = {}
    if progress_dir is not None:
        fingerprints = [{**model_fingerprint(one), "versions": versions()} for one in models]
        of_models = {"models": fingerprints, "place": _precision_and_device(model)}
    speeds = []
    for scenario in scenarios or paper_scenarios(model):
        times = repeats or _default_repeats(scenario, model.device)
        conditions = {"scenario": vars(scenario), "repeats": times, "warm_up": warm_up, **of_models}
        measure = partial(_measure, models, scenario, times, warm_up)
        speeds.append(store.get_or_measure(scenario.kind, conditions, Speed, measure))
    return tuple(speeds)


def _measure(models: Sequence[PreTrainedModel], scenario: Scenario, repeats: int, warm_up: int) -> Speed:
    device = models[0].device
    with ExitStack() as measured:
        for model in models:
            measured.enter_context(evaluating(model))
        runs = [runner(model, scenario) for model in models]
        try:
            timings = time_in_turns(runs, device, repeats=repeats, warm_up=warm_up)
            time_shares = _time_shares(models[-1], scenario)
        except RuntimeError as error:
            if not ran_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f"Memory ran out with {scenario.protocol}; choose fewer sequences (--batch-sizes) or shorter ones."
            ) from error
    pruned, *dense = map(_model_speed, models, timings)
    if not dense:
        return Speed(scenario, _precision_and_device(models[0]), replace(pruned, parts=time_shares))
    return Speed(scenario, _precision_and_device(models[0]), pruned, replace(dense[0], parts=time_shares))


def _time_shares(model: PreTrainedModel, scenario: Scenario) -> TimeShares | None:
    """Measure the shares of the time of one run; `None` for a compiled scenario."""
    if scenario.compile:
        return None  # the hooks that measure would split a compiled model into several graphs
    shorter = replace(scenario, new_tokens=min(scenario.new_tokens, _NEW_TOKENS))
    return measure_time_shares(model, runner(model, shorter))


def _model_speed(model: PreTrainedModel, timing: Timing) -> ModelSpeed:
    return ModelSpeed(timing, num_blocks_of(model.config), model.get_memory_footprint(return_buffers=False))


def _check(models: Sequence[PreTrainedModel], repeats: int | None, warm_up: int) -> None:
    conditions = {_precision_and_device(model) for model in models}
    if len(conditions) > 1:
        raise ConfigError(f"The two models do not compare: {' against '.join(sorted(conditions))}; load them alike.")
    if (repeats is not None and repeats < 1) or warm_up < 1:
        raise ConfigError(f"repeats and warm_up must be at least 1, got {repeats} and {warm_up}.")


def _precision_and_device(model: PreTrainedModel) -> str:
    on_gpu = model.device.type == "cuda"
    device = torch.cuda.get_device_name(model.device) if on_gpu else f"CPU with {torch.get_num_threads()} threads"
    return f"{str(model.dtype).removeprefix('torch.')} on {device}"


def _default_repeats(scenario: Scenario, device: torch.device) -> int:
    if device.type == "cpu":
        return 5 if scenario.kind == "prompt" else 3
    return 20 if scenario.kind == "prompt" else 5
