"""The target of a recipe for one model, speed included: expected by the cost model, and measured on a GPU."""

from collections.abc import Collection, Sequence

from transformers import PreTrainedModel

from ..blocks.stack import DecoderStack
from ..blocks.surgery import build_shortened, copy_device_hooks, fill, kept_state
from ..config import SLEBConfig, amount_name
from ..errors import ConfigError
from ..models.goals import Goal, size_goal
from ..report.records import SpeedRecord
from ..runtime.ranks import Ranks
from .benchmark import benchmark
from .scenarios import Scenario, paper_scenarios, runner
from .time_shares import expected_speedup, measure_block_shares

# Shares of the time are measured over at most this many new tokens; a longer generation has much the same.
_NEW_TOKENS = 32


def goal_of(
    model: PreTrainedModel, stack: DecoderStack, config: SLEBConfig, candidates: Sequence[int], ranks: Ranks
) -> Goal | None:
    """Return the target of a recipe, `None` if it has none; refuse one that cannot be met with these candidates.
    The model lies where it computes. Raise UnsupportedModelError if its cache cannot be determined."""
    goal = size_goal(model, stack, config)
    if amount_name(config) == "min_speedup":
        if stack.loader is not None:
            raise ConfigError(
                f"min_speedup={config.min_speedup} needs the time of a model that its device holds, but these blocks "
                "are brought there one at a time; say how much goes with max_parameters or num_blocks_to_remove."
            )
        goal = _speed_goal(model, config, ranks)
    if goal is not None:
        goal.check(candidates, len(stack))
    return goal


def _speed_goal(model: PreTrainedModel, config: SLEBConfig, ranks: Ranks) -> Goal:
    scenario = _scenario_of(model, config)
    short = Scenario(scenario.kind, scenario.batch_size, scenario.prompt_length, min(scenario.new_tokens, _NEW_TOKENS))
    # One process measures, so that all of them end at the same block.
    shares = ranks.from_first(lambda: measure_block_shares(model, runner(model, short)))
    counted = f"speed of {scenario.kind} ({scenario.protocol}), by the time that the blocks take"
    return Goal("min_speedup", config.min_speedup or 0, counted, lambda removed: expected_speedup(shares, removed))


def speeds_of_target(
    model: PreTrainedModel, stack: DecoderStack, config: SLEBConfig, removed: Collection[int]
) -> tuple[SpeedRecord, ...]:
    """Measure what a recipe with `min_speedup` gained, if the model computes on a GPU; else return nothing."""
    if config.min_speedup is None or model.device.type != "cuda" or not removed:
        return ()
    return (measured_speed(model, stack, config, removed),)


def measured_speed(
    model: PreTrainedModel, stack: DecoderStack, config: SLEBConfig, removed: Collection[int]
) -> SpeedRecord:
    """Time the model without some blocks in turns with the whole one, in the scenario of the recipe's target.
    The shortened model shares the weights, so it takes no memory of its own."""
    kept = [block for block in range(len(stack)) if block not in removed]
    shortened = build_shortened(model, stack, kept)
    fill(shortened, model, kept_state(model, stack, kept, shortened))
    copy_device_hooks(shortened, model, stack, kept)
    (speed,) = benchmark(shortened, model, [_scenario_of(model, config)])
    return speed.record()


def _scenario_of(model: PreTrainedModel, config: SLEBConfig) -> Scenario:
    kind = config.speedup_of or "generation"
    return next(scenario for scenario in paper_scenarios(model) if scenario.kind == kind)
