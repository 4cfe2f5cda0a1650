"""Targets of a recipe: what the shortened model must come to, and what it comes to without some of its blocks."""

from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from transformers import PreTrainedModel

from ..blocks.cache import cache_bytes, running_without_numbers
from ..blocks.stack import DecoderStack, find_decoder_stack
from ..blocks.surgery import build_shortened
from ..config import PUBLISHED_WINDOW_LENGTH, SLEBConfig, amount_name, candidates_of, quantity_of
from ..errors import ConfigError, UnsupportedModelError
from ..report.records import TargetRecord
from .positions import most_positions


@dataclass(frozen=True)
class Goal:
    """A target of a recipe, for one model."""

    name: str  # field of the recipe
    asked: float  # parameters, bytes, or a factor
    counted: str  # what is counted, in words
    compute: Callable[[frozenset[int]], float]  # without some blocks, by index; asked more than once for the same

    def value_of(self, removed: Collection[int]) -> float:
        """Return what the model comes to without some blocks, by index."""
        return self.compute(frozenset(removed))

    def is_met(self, removed: Collection[int]) -> bool:
        """Return whether the model without some blocks meets the target."""
        return self._meets(self.value_of(removed))

    def record(self, removed: Collection[int]) -> TargetRecord:
        """Return target and result for the report."""
        return TargetRecord(self.name, self.asked, self.value_of(()), self.value_of(removed), self.counted)

    def check(self, candidates: Sequence[int], num_blocks: int) -> None:
        """Refuse a target that the model meets already, or that it does not meet without all of the candidates."""
        all_of_them = candidates[: num_blocks - 1]
        before, record = self.value_of(()), None
        if self._meets(before):
            found = TargetRecord(self.name, self.asked, before, before, self.counted)
            raise ConfigError(
                f"The model meets {self.name}={found.shown(self.asked)} already, with {found.shown(before)} "
                f"({self.counted}); ask for less, or leave it as it is."
            )
        with suppress(UnsupportedModelError):  # not all of them can go at once, so the search must show how many can
            record = self.record(all_of_them)
        if record is not None and not self._meets(record.reached):
            raise ConfigError(
                f"{self.name}={record.shown(self.asked)} cannot be met: without all {len(all_of_them)} of the "
                f"{num_blocks} blocks that may go it is {record.shown(record.reached)} ({self.counted}); ask for that "
                "or let more blocks go."
            )

    def depth(self, candidates: Sequence[int]) -> int | None:
        """Return how many blocks meet the target, whichever of the candidates go; `None` where that matters."""
        with suppress(UnsupportedModelError):
            if len({self.value_of((block,)) for block in candidates}) == 1:  # each counts for the same
                return bisect_left(range(len(candidates)), True, key=lambda depth: self.is_met(candidates[:depth]))
        return None

    def _meets(self, value: float) -> bool:
        return value >= self.asked if self.name == "min_speedup" else value <= self.asked


def size_goal(model: PreTrainedModel, stack: DecoderStack, config: SLEBConfig) -> Goal | None:
    """Return the goal of a recipe that asks for few parameters or bytes; `None` for any other recipe.
    `model` has its own precision, and may lie on the meta device. Raise UnsupportedModelError if its cache is unknown.
    """
    name, dtype = amount_name(config), model.dtype

    def shortened(removed: Collection[int]) -> PreTrainedModel:
        kept = [block for block in range(len(stack)) if block not in removed]
        return build_shortened(model, stack, kept, real_buffers=False, stored_dtype=dtype)

    if name == "max_parameters":
        # The model can have more than its config calls for, such as a head that is not tied to the embeddings.
        more = model.num_parameters() - shortened(()).num_parameters()
        asked = quantity_of(config.max_parameters or 0, name)
        return Goal(name, asked, "the parameters", cache(lambda removed: shortened(removed).num_parameters() + more))
    if name != "max_memory":
        return None
    length, sequences = _context_length(config, model), config.num_sequences or 1
    more_bytes = _weight_bytes(model) - _weight_bytes(shortened(()))

    @cache
    def memory(removed: frozenset[int]) -> int:
        template = shortened(removed)
        return _weight_bytes(template) + more_bytes + cache_bytes(template, sequences, length)

    precision = str(dtype).removeprefix("torch.")
    counted = f"the weights and the cache of {sequences:,} x {length:,} tokens in {precision}"
    return Goal(name, quantity_of(config.max_memory or 0, name), counted, memory)


def check_size_goal(model: PreTrainedModel, config: SLEBConfig, blocks: Sequence[int]) -> None:
    """Refuse a target for parameters or bytes that cannot be met, before weights are loaded; `model` has none."""
    if amount_name(config) not in ("max_parameters", "max_memory"):
        return
    try:
        with running_without_numbers(model):
            stack = find_decoder_stack(model)
        goal = size_goal(model, stack, config)
    except ConfigError:
        raise
    except Exception:  # from a family's own code; what cannot be told yet is told when the model is there
        return
    if goal is not None:
        goal.check(candidates_of(config, blocks), len(stack))


def _context_length(config: SLEBConfig, model: PreTrainedModel) -> int:
    most, asked = most_positions(model), config.context_length
    if asked is None:
        return min(PUBLISHED_WINDOW_LENGTH, most or PUBLISHED_WINDOW_LENGTH)
    if most is not None and asked > most:
        raise ConfigError(
            f"context_length={asked} is more than the {most} positions of {type(model).__name__}; choose at most "
            f"{most}."
        )
    return asked


def _weight_bytes(model: PreTrainedModel) -> int:
    return model.get_memory_footprint(return_buffers=False)
