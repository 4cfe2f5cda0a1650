"""The report of a run: every step, the loss of every candidate, and how they were measured."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from ..blocks.criterion import KL, metric_of, value_of
from ..config import MAX_BLOCKS, SLEBConfig
from ..runtime.json import Within
from .cuts import cut_of
from .depths import DepthRecord
from .frame import losses_frame
from .records import (
    Amount,
    BlockNumber,
    CalibrationRecord,
    CompensationRecord,
    Count,
    EvaluationRecord,
    HealingRecord,
    SearchRecord,
    SpeedRecord,
    StepRecord,
    TargetRecord,
    WeightsRecord,
)
from .stored import StoredReport
from .summary import summary_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True, repr=False)
class PruningReport(StoredReport):
    """Report of a run. Blocks are named by their number in the dense model, also over several runs.

    Attributes:
        base_model: Name or path of the dense model; `None` for a model from memory without a name.
        architecture: Class of the model.
        original_num_blocks: Number of blocks of the dense model.
        blocks_before: Blocks of the model when this run began.
        parameters_before: Number of parameters when this run began.
        parameters_after: Number of parameters when it ended.
        steps: The removals of this run, in order.
        seconds: Duration of the run.
        created: When the run ended, UTC, ISO 8601.
        versions: Versions of Python, this package and the libraries that can change the result.
        recipe: The recipe; `None` where known blocks were removed without a search.
        calibration: The calibration text of the search; `None` without a search.
        search: How the search measured; `None` without a search.
        barred_blocks: Blocks between the barriers that cannot be removed from this architecture, and why.
        previous: Report of the run before; `None` where this run began with the dense model.
        loading: Arguments of `from_pretrained` that say which weights were pruned: revision, precision, GGUF file.
        weight_bytes_before: Bytes of all weights when this run began, summed over the tensors.
        weight_bytes_after: Bytes of all weights when it ended.
        size_on_disk: Bytes of the weight files in the saved folder; `None` before the model is saved.
        weights_sha256: SHA-256 of these files, to detect that they were changed.
        evaluations: Quality measurements of the finished model.
        pruned_evaluations: Of a healed model, those of the pruned one that it was healed from.
        compensation: How the cuts of this run's model were compensated; `None` where they were not.
        speeds: Speed measurements of the finished model.
        healing: How the pruned model was fine-tuned afterwards, in order; empty where it was not.
        weights_before: Sample of the weights when this run began; `None` in reports of earlier versions.
        target: What the recipe's target asked for and what was reached; `None` where it gave a number of blocks or a
            perplexity budget.
        depths: Of a search over sets of blocks: the best set of each size, from one block up. Its last one is what the
            steps remove, which then have no losses of their own; empty for a search that is greedy.

    Example:
        ```python
        report = pruner.report
        print(report.removed_blocks)  # (5, 4, 26, 3, 25, 6)
        print(report.summary())
        ```
    """

    base_model: str | None
    architecture: str
    original_num_blocks: Annotated[int, Within(1, MAX_BLOCKS)]
    blocks_before: tuple[BlockNumber, ...]
    parameters_before: Count
    parameters_after: Count
    steps: tuple[StepRecord, ...]
    seconds: Amount
    created: str
    versions: dict[str, str]
    recipe: SLEBConfig | None = None
    calibration: CalibrationRecord | None = None
    search: SearchRecord | None = None
    barred_blocks: dict[BlockNumber, str] = field(default_factory=dict)
    previous: "PruningReport | None" = None
    loading: dict[str, str] = field(default_factory=dict)
    weight_bytes_before: Count | None = None
    weight_bytes_after: Count | None = None
    size_on_disk: Count | None = None
    weights_sha256: str | None = None
    evaluations: tuple[EvaluationRecord, ...] = ()
    pruned_evaluations: tuple[EvaluationRecord, ...] = ()
    compensation: CompensationRecord | None = None
    speeds: tuple[SpeedRecord, ...] = ()
    healing: tuple[HealingRecord, ...] = ()
    weights_before: WeightsRecord | None = None
    target: TargetRecord | None = None
    depths: tuple[DepthRecord, ...] = ()

    @property
    def removed_blocks(self) -> tuple[int, ...]:
        """All blocks removed so far, over all runs, in order of removal."""
        return tuple(step.block for run in self.runs for step in run.steps)

    @property
    def runs(self) -> "tuple[PruningReport, ...]":
        """The reports of all runs, from the one that began with the dense model to this one."""
        return (self,) if self.previous is None else (*self.previous.runs, self)

    @property
    def first_run(self) -> "PruningReport":
        """The report of the run that began with the dense model."""
        return self.runs[0]

    @property
    def healed_between_runs(self) -> bool:
        """Return whether the model was fine-tuned between two runs, so that pruning alone cannot make it again."""
        return any(run.healing for run in self.runs[:-1])

    @property
    def blocks_after(self) -> tuple[int, ...]:
        """The blocks that remain when the run ends."""
        gone = {step.block for step in self.steps}
        return tuple(block for block in self.blocks_before if block not in gone)

    @property
    def perplexity_before(self) -> float | None:
        """Perplexity on the calibration text when the run began; `None` without a search, or where a search by another
        criterion did not measure it."""
        return self.search.perplexity_before if self.search is not None and self.criterion else self._before

    @property
    def perplexity_after(self) -> float | None:
        """Perplexity on the calibration text when the run ended; `None` without a search, or where a search by another
        criterion did not measure it, as for a cut."""
        return self.search.perplexity_after if self.search is not None and self.criterion else self._after

    @property
    def criterion(self) -> str | None:
        """The function whose losses the search lowered; `None` is cross-entropy, or no search."""
        return None if self.search is None else self.search.criterion

    @property
    def metric(self) -> str:
        """What the search lowered, in words. A later run measures the divergence from the model that it began with."""
        if self.criterion == KL and len(self.blocks_before) < self.original_num_blocks:
            return "KL divergence from the model before"
        return metric_of(self.criterion)

    @property
    def criterion_before(self) -> float | None:
        """The criterion when the run began, as `value_of` gives it; `None` for cross-entropy."""
        return self._before if self.criterion else None

    @property
    def criterion_after(self) -> float | None:
        """The criterion when the run ended, as `value_of` gives it; `None` for cross-entropy."""
        return self._after if self.criterion else None

    @property
    def _before(self) -> float | None:
        return None if self.search is None else self.value_of(self.search.loss_before)

    @property
    def _after(self) -> float | None:
        return self.value_of(self._curve[-1]) if self._curve else self._before

    @property
    def _curve(self) -> tuple[float | None, ...]:
        """The loss of each depth of this run, from one block up."""
        return tuple(one.final_loss for one in (self.depths or self.steps))

    @property
    def closest_decision(self) -> tuple[int | tuple[int, ...], float] | None:
        """The decision of this run that was nearest to a tie, which rounding would change first.

        Another device, precision, batch size or library version rounds differently. With all of them equal, the same
        run gives the same result.

        Returns:
            The removed block, and by which share the loss of the next best candidate was higher (0.01 is 1 %); of a
            search over sets the best set of a depth, and that share for the next best set of it, by the held-back loss
            where sets were compensated. `None` without a search.
        """
        removed: dict[int | tuple[int, ...], float | None] = {one.removed: one.margin for one in self.depths}
        margins = removed or {step.block: step.margin for step in self.steps}
        known = {block: margin for block, margin in margins.items() if margin is not None}
        return min(known.items(), key=lambda item: item[::-1], default=None)

    def value_of(self, loss: float | None) -> float | None:
        """Turn a loss of this run into what a reader compares.

        Args:
            loss: A loss summed over windows, as a step has it.

        Returns:
            The perplexity; by `"kl"` the nats of a token, by a criterion of one's own the mean loss of a window;
            `None` without a search.

        Example:
            ```python
            report.value_of(report.steps[0].loss)
            ```
        """
        if loss is None or self.calibration is None:
            return None
        counts = self.calibration
        return value_of(self.criterion, loss, num_windows=counts.num_windows, num_counted=counts.num_counted)

    def cut(self, num_removed: int) -> "PruningReport":
        """Return the report of a shallower cut of the same search: its first removals, or its best set of so many.

        A search knows every depth up to its last, so one search serves them all. Each depth of a greedy search
        contains the removals of all smaller depths; those of a search over sets need not.

        Args:
            num_removed: Number of blocks that the shallower cut removes, counted from the dense model.

        Returns:
            The report up to that depth. Its numbers of parameters and bytes are still those of the whole run;
            measurements of the finished model are left out.

        Raises:
            ReportError: If the search made fewer removals.

        Example:
            ```python
            report.cut(4).removed_blocks  # (5, 4, 26, 3)
            ```
        """
        return cut_of(self, num_removed)

    def to_pandas(self) -> "DataFrame":
        """Return a table with a row for every step and candidate, over all runs.

        Returns:
            A `pandas.DataFrame` with the columns `run` and `step`, both from 1 and counted from the dense model;
            `block`; `status`: `"removed"`, `"kept"`, `"dropped"` by a race, `"barred"` because it cannot go together
            with the removed ones, or `"non_finite"`; `loss` without the block, in nats, summed over windows, and its
            `perplexity`; `compensated_loss` of the removed block; `windows` that were measured; `reason` of a bar.
            After a search over sets a row is a set: `step` is its depth, the column `blocks` all that it removes in
            its run, ascending, `block` is empty, the best set of each depth is `"removed"`, and `held_back_loss` is
            that of the sets that were compensated.

        Example:
            ```python
            table = pruner.report.to_pandas()
            table[table.status == "removed"].set_index("step").perplexity
            ```
        """
        return losses_frame((run.steps, run.depths, run.calibration, run.criterion) for run in self.runs)

    def plot(self) -> "Figure":
        """Plot perplexity against the number of removed blocks, with the candidates that lost, as on the model card.

        Returns:
            A `matplotlib.figure.Figure` of 6 x 4 inches. It needs no display; a notebook shows it.

        Raises:
            ReportError: If the run removed known blocks, without a search, or its perplexity is not finite.

        Example:
            ```python
            pruner.report.plot().savefig("losses.png")
            ```
        """
        from .plot import plot_losses

        return plot_losses(self)

    def __repr__(self) -> str:
        depths = f"{len(self.blocks_before)} -> {len(self.blocks_after)} blocks"
        removed = f"removed {' '.join(map(str, self.removed_blocks)) or 'none'}"
        before, after = self.perplexity_before, self.perplexity_after
        cost = "" if before is None or after is None else f", calibration perplexity {before:.2f} -> {after:.2f}"
        return f"PruningReport({self.base_model or self.architecture}, {depths}, {removed}{cost})"

    def summary(self) -> str:
        """Return a short table of the removals and their cost on the calibration text.

        Returns:
            Lines of text, without a final line break.

        Example:
            ```python
            print(pruner.report.summary())
            ```
        """
        return summary_of(self)
