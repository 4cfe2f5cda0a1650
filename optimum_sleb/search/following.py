"""How a search tells its log and its callbacks how far it is; of several processes, the first one does."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from ..config import MAX_BLOCKS, SLEBConfig, as_ranges
from ..errors import ConfigError
from ..runtime.json import shown
from ..runtime.logs import get_logger
from ..runtime.ranks import Ranks
from .callbacks import SearchCallback, SearchControl, SearchState
from .greedy import Step

logger = get_logger(__name__)

Event = Literal["search_begin", "candidates_measured", "block_removed", "compensated", "search_end"]


def check_callbacks(callbacks: Sequence[SearchCallback]) -> None:
    """Raise ConfigError for what are no callbacks of a search."""
    if not isinstance(callbacks, list | tuple):
        raise ConfigError(f"callbacks must be a list of SearchCallback objects; got {shown(callbacks)}.")
    for callback in callbacks:
        if not isinstance(callback, SearchCallback):
            raise ConfigError(f"A callback of a search must be a SearchCallback object; got {shown(callback)}.")


class Followers:
    """The log and the callbacks of a search. All processes must make the same calls, because an error of a callback,
    and a stop, reach all of them."""

    def __init__(
        self,
        config: SLEBConfig,
        ranks: Ranks,
        callbacks: Sequence[SearchCallback] = (),
        dense_numbers: Sequence[int] | None = None,  # of the model's blocks; `None`: their indices
    ) -> None:
        self._config, self._ranks, self._callbacks = config, ranks, callbacks
        self.number_of: Callable[[int], int] = (dense_numbers or range(MAX_BLOCKS)).__getitem__
        self._control = SearchControl()

    def begin(self, num_blocks: int, num_candidates: int, max_steps: int | None, metric: str, value: float) -> None:
        """Tell that the search begins, with the value of the metric before it."""
        self._started = self._step_started = time.perf_counter()
        self._num_candidates, self._before_step = num_candidates, value
        self._state = SearchState(num_blocks, metric, value, value, max_steps)
        self._tell("search_begin")

    def measured(self, step: Step) -> None:
        """Tell that the candidates of a step were measured."""
        losses = {self.number_of(block): loss for block, loss in step.losses.items()}
        self._before_step = self._state.value
        self._tell("candidates_measured", step=self._state.step + 1, candidate_losses=losses, block=None)

    def removed(self, block: int, value: float, compensated: float | None) -> None:
        """Tell that a block (an index) went, with the metric without it and, if compensated, then."""
        number = self.number_of(block)
        self._now_without(number, (*self._state.removed_blocks, number), value)
        if compensated is not None:
            self._tell("compensated", value=compensated)
        self._log(_line(self._state, self._before_step))

    def measured_sets(self, losses: dict[tuple[int, ...], float]) -> None:
        """Tell that the sets of a depth were measured."""
        self._before_step = self._state.value
        named = {tuple(map(self.number_of, blocks)): loss for blocks, loss in losses.items()}
        self._tell("candidates_measured", step=self._state.step + 1, set_losses=named, block=None)

    def removed_set(self, blocks: Sequence[int], value: float) -> None:
        """Tell that a set (of indices) is gone, instead of the one before, with the metric without it."""
        self._now_without(None, tuple(map(self.number_of, blocks)), value)
        self._log(_line(self._state, self._before_step))

    def _now_without(self, block: int | None, removed: tuple[int, ...], value: float) -> None:
        now = time.perf_counter()
        seconds, self._step_started = now - self._step_started, now
        state = replace(self._state, block=block, removed_blocks=removed, value=value, step_seconds=seconds)
        self._state = replace(state, eta=_eta(state, self._num_candidates))
        self._tell("block_removed")

    def compensated(self, value: float, chosen: Sequence[int] = ()) -> None:
        """Tell that all removals were compensated after the last one; `chosen` is the set that was best then."""
        removed = tuple(map(self.number_of, chosen)) or self._state.removed_blocks
        without = f" without blocks {as_ranges(removed)}" if chosen else ""
        self._log(f"compensated{without}: {_change(self._state.metric, self._state.value, value)}")
        self._tell("compensated", value=value, removed_blocks=removed)

    def end(self, *, early: bool) -> None:
        """Tell that the search ended, `early` where a callback stopped it."""
        if early:
            self._log(f"stopped by a callback after step {len(self._state.removed_blocks)}")
        self._tell("search_end", step=len(self._state.removed_blocks), stopped_early=early)

    def ask_to_stop(self) -> bool:
        """Return whether a callback asked for the end of the search, in all processes."""
        return self._ranks.from_first(lambda: self._control.should_stop)

    def _tell(self, event: Event, **changed: Any) -> None:
        seconds = time.perf_counter() - self._started
        self._state = replace(self._state, seconds=seconds, **changed)
        self._ranks.from_first(lambda: self._call(event))

    def _call(self, event: Event) -> None:
        for callback in self._callbacks:
            getattr(callback, f"on_{event}")(self._config, self._state, self._control)

    def _log(self, line: str) -> None:
        if self._ranks.is_first:
            logger.info(line)


def _eta(state: SearchState, num_candidates: int) -> float | None:
    """Return the seconds that the steps to come will take, if the work of a step is candidates times blocks."""
    done = len(state.removed_blocks)
    is_beginning = state.block is None and done == 1  # of a search over sets: there are several times as many later
    if state.max_steps is None or is_beginning:
        return None
    work = [(num_candidates - step) * (state.num_blocks - step) for step in range(done - 1, state.max_steps)]
    return state.step_seconds * sum(work[1:]) / work[0]


def _line(state: SearchState, before: float) -> str:
    """Return what the log says of a step."""
    of = "" if state.max_steps is None else f" of {state.max_steps}"
    left = f", about {_duration(state.eta)} left" if state.eta else ""
    change = _change(state.metric, before, state.value)
    what = (
        f"without blocks {as_ranges(state.removed_blocks)}" if state.block is None else f"block {state.block} removed"
    )
    return f"step {state.step}{of}: {what}, {change}, {_duration(state.step_seconds)}{left}"


def _change(metric: str, before: float, after: float) -> str:
    """Return how a metric changed.

    >>> _change("perplexity", 21.6, 1027.444)
    'perplexity 21.60 -> 1027.44'
    """
    style = ".2f" if metric == "perplexity" else ".4g"
    return f"{metric} {before:{style}} -> {after:{style}}"


def _duration(seconds: float) -> str:
    """Return a time as a reader takes it in.

    >>> _duration(0.31), _duration(42.4), _duration(600), _duration(9000)
    ('0.3 s', '42 s', '10 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
