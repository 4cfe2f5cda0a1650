"""A search, as the page shows it while it runs and afterwards."""

import math
import time
from dataclasses import dataclass, field

from job import Job

from optimum_sleb import PruningReport, SearchCallback, SearchControl, SearchState, SLEBConfig


@dataclass(frozen=True)
class Step:
    """One removal: the metric of the model then, and without each candidate or set that lost."""

    value: float
    others: dict[str, float] = field(default_factory=dict)  # by the blocks, in words


@dataclass(frozen=True)
class View:
    """What is known of a search."""

    metric: str
    blocks: tuple[int, ...]  # by their numbers in the dense model, as the search began
    before: float
    max_steps: int | None = None
    steps: tuple[Step, ...] = ()
    removed: tuple[int, ...] = ()
    seconds: float = 0.0
    eta: float | None = None

    @classmethod
    def of_report(cls, report: PruningReport) -> "View":
        """Return the view of a search that ended."""
        run, metric = report.search, report.metric
        steps = []
        for one in report.depths or report.steps:
            lost = (
                {_words(each.removed): each.loss for each in one.sets if each.removed != one.removed}
                if report.depths
                else {str(block): loss for block, loss in one.candidate_losses.items() if block != one.block}
            )
            steps.append(
                Step(report.value_of(one.final_loss), {key: report.value_of(loss) for key, loss in lost.items()})
            )
        return cls(
            metric, report.blocks_before, report.value_of(run.loss_before), len(steps), tuple(steps),
            tuple(step.block for step in report.steps), report.seconds,
        )  # fmt: skip


class Follower(SearchCallback):
    """Callback that tells a job about a search, and stops it when the visitor or the time asks for it."""

    def __init__(self, job: Job, blocks: tuple[int, ...], most_seconds: float) -> None:
        self._job, self._blocks, self._deadline = job, blocks, time.monotonic() + most_seconds
        self._steps: list[Step] = []
        self.ran_out_of_time = False

    def on_search_begin(self, config: SLEBConfig, state: SearchState, control: SearchControl) -> None:
        """Show the stack of the dense model."""
        self._job.tell(self._view(state))

    def on_candidates_measured(self, config: SLEBConfig, state: SearchState, control: SearchControl) -> None:
        """End a search that was cancelled."""
        self._job.tell()

    def on_block_removed(self, config: SLEBConfig, state: SearchState, control: SearchControl) -> None:
        """Show the step."""
        losses = {_words(key): loss for key, loss in state.set_losses.items()} or {
            str(block): loss for block, loss in state.candidate_losses.items()
        }
        chosen = _words(sorted(state.removed_blocks)) if state.set_losses else str(state.block)
        best = losses.pop(chosen)
        others = {name: _in_units(loss, best, state) for name, loss in losses.items()}
        self._steps.append(Step(state.value, others))
        self._job.tell(self._view(state))
        self.ran_out_of_time = time.monotonic() > self._deadline
        control.should_stop = self.ran_out_of_time or self._job.stop_soon.is_set()

    def _view(self, state: SearchState) -> View:
        return View(
            state.metric, self._blocks, state.value_before, state.max_steps, tuple(self._steps),
            state.removed_blocks, state.seconds, state.eta,
        )  # fmt: skip


def _in_units(loss: float, best: float, state: SearchState) -> float:
    """Turn the loss of a candidate into the metric, by the candidate for which both are known."""
    if state.metric == "perplexity":
        return math.exp(min(loss / best * math.log(state.value), 700))
    return loss / best * state.value if best else loss


def _words(blocks: tuple[int, ...] | list[int]) -> str:
    return ", ".join(map(str, blocks))
