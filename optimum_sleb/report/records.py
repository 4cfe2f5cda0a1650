"""The parts of a report: calibration text, search, steps, and measurements of the finished model."""

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Annotated

from ..config import MAX_BLOCKS
from ..errors import ReportError
from ..runtime.json import Within

# What the numbers of a report can be; a file with others is refused when it is read.
BlockNumber = Annotated[int, Within(0, MAX_BLOCKS - 1)]
Count = Annotated[int, Within(0, 2**63 - 1)]
CountFromOne = Annotated[int, Within(1, 2**63 - 1)]
Amount = Annotated[float, Within(0)]  # nats, seconds, standard errors
Perplexity = Annotated[float, Within(1)]
Loss = Annotated[float, Within(-math.inf)]  # of a criterion that is not cross-entropy; else at least 0


@dataclass(frozen=True)
class CalibrationRecord:
    """The calibration text of a search."""

    source: str  # data set, file or kind of object
    num_windows: CountFromOne
    num_tokens: CountFromOne  # in all windows
    window_length: CountFromOne | None  # in tokens, BOS included; None where windows differ in length
    bos_per_window: bool  # a BOS token was put in front of every window
    fingerprint: str  # SHA-256 of the token ids, and of the labels if the loss was measured on labels
    num_labels: Count | None = None  # tokens with a label; None where the loss was measured on all tokens
    columns: str | None = None  # the columns that were read, and how, in words; None for data without columns

    @property
    def num_counted(self) -> int:
        """Return the number of tokens that turns a loss, summed over windows, into the logarithm of a perplexity."""
        return self.num_tokens if self.num_labels is None else self.num_labels + self.num_windows


@dataclass(frozen=True)
class SearchRecord:
    """The method, precision, device and cost of a search."""

    method: str  # "exact", "racing" or "reference"
    reason: str  # why this method
    dtype: str  # of the forward passes; the losses are always float32
    device: str
    block_passes: Count  # decoder blocks run in the whole search, counted once per window
    loss_before: Loss  # calibration loss before the first removal, in nats, summed over windows
    exact_block_passes: Count | None = None  # after a race: what the exact search would have run for the same removals
    batch_size: CountFromOne | None = None  # windows in one forward pass, at the end of the search
    compilation: str | None = None  # what was compiled, or why nothing was
    compile_seconds: Amount | None = None  # time for compiling and comparing; None where not tried
    # Why blocks were brought to the device one at a time; None where it held the whole model
    offload: str | None = None
    processes: CountFromOne = 1  # number of processes that searched together
    criterion: str | None = None  # function whose losses the search lowered; None is cross-entropy, in nats
    stopped_early: bool = False  # by a callback, before as many blocks had gone as the recipe asks for
    # Of a search by another criterion: on the calibration text, before it and of the (compensated) model in the end;
    # None where it was not measured or is not finite. Of a search by cross-entropy the losses tell it
    perplexity_before: Perplexity | None = None
    perplexity_after: Perplexity | None = None


@dataclass(frozen=True)
class StepRecord:
    """One removal. Blocks are named by their number in the dense model; losses are in nats, summed over windows."""

    block: BlockNumber  # the removed block
    # Loss without each candidate, of those measured on all windows; empty without a search
    candidate_losses: dict[BlockNumber, Loss] = field(default_factory=dict)
    seconds: Amount | None = None  # None without a search
    # Candidates with a lower loss that cannot go together with the removed blocks, and why
    barred_blocks: dict[BlockNumber, str] = field(default_factory=dict)
    # Candidates that a race gave up, and after how many windows
    dropped_blocks: dict[BlockNumber, Count] = field(default_factory=dict)
    # Candidates with a NaN or infinite loss, and the first such window
    non_finite_blocks: dict[BlockNumber, Count] = field(default_factory=dict)
    compensated_loss: Loss | None = None  # after compensating all cuts; None where not compensated

    @property
    def loss(self) -> float | None:
        """Return the calibration loss after this removal, before compensation; `None` without a search."""
        return self.candidate_losses.get(self.block)

    @property
    def final_loss(self) -> float | None:
        """Return the calibration loss after this removal and any compensation; `None` without a search."""
        return self.loss if self.compensated_loss is None else self.compensated_loss

    @property
    def margin(self) -> float | None:
        """Return by which share the loss of the next best candidate was higher; `None` where there was none."""
        settled = {self.block, *self.barred_blocks}
        others = [loss for block, loss in self.candidate_losses.items() if block not in settled]
        return share_above(self.loss, others)


def share_above(best: float | None, others: Collection[float]) -> float | None:
    """Return by which share the lowest of the other losses is higher than the best; `None` without one or the other.

    >>> share_above(2.0, [2.5, 3.0])
    0.25
    """
    return math.copysign(1, best) * (min(others) / best - 1) if best and others else None


@dataclass(frozen=True)
class WeightsRecord:
    """A sample of a model's weights that tells it from other models of the same shape; see `sample_weights`."""

    epsilon: Amount  # machine epsilon of the model's precision
    values: dict[str, float]  # one weight of each sampled parameter, by name


@dataclass(frozen=True)
class CutRecord:
    """Compensation of one gap. Blocks are named by their number in the dense model."""

    block: BlockNumber | None  # the block before the gap; None where the gap starts at the first block
    gap: tuple[BlockNumber, ...]  # the removed blocks
    loss_before: Amount  # on the held-back windows, in nats, summed, before this cut was compensated
    loss_after: Amount  # never higher: a map that does not lower the loss is not kept
    kept: str | None = None  # the map that was kept; None where none was
    # Loss after each map that was tried; non-finite ones are left out
    tried: dict[str, Amount] = field(default_factory=dict)
    module: str | None = None  # module of the block that the map was folded into
    reason: str | None = None  # why no map could be tried


@dataclass(frozen=True)
class CompensationRecord:
    """Compensation of all cuts of a model."""

    num_fit_windows: Count  # calibration windows for fitting the maps
    num_held_back_windows: Count  # calibration windows for verifying them
    held_back_tokens: CountFromOne  # turns the losses of the held-back windows into perplexities
    cuts: tuple[CutRecord, ...]  # from the bottom of the stack up
    seconds: Amount  # for fitting and verifying

    @property
    def held_back_loss(self) -> float:
        """Return the loss on the held-back windows after all cuts were compensated."""
        return self.cuts[-1].loss_after


@dataclass(frozen=True)
class TargetRecord:
    """The target of a recipe that gives no number of blocks, and what the search came to."""

    name: str  # field of the recipe: "max_parameters", "max_memory" or "min_speedup"
    asked: Amount  # parameters, bytes, or a factor
    before: Amount  # of the model when the run began
    reached: Amount  # without the removed blocks
    counted: str  # what was counted, in words

    def shown(self, value: float) -> str:
        """Return a value of this target with its unit.

        >>> TargetRecord("max_memory", 16e9, 2e10, 15.5e9, "the weights").shown(15.5e9)
        '15.500 GB'
        """
        if self.name == "max_parameters":
            return f"{value:,.0f}"
        if self.name == "min_speedup":
            return f"{value:.3g}x"
        unit, size = next((pair for pair in (("GB", 1e9), ("MB", 1e6)) if value >= pair[1]), ("bytes", 1))
        return f"{value / size:,.3f} {unit}" if size > 1 else f"{value:,.0f} bytes"

    def summary(self) -> str:
        """Return target and result in one line."""
        numbers = f"{self.shown(self.before)} before, {self.shown(self.reached)} after"
        return f"{self.name}={self.shown(self.asked)}: {numbers} ({self.counted})"


@dataclass(frozen=True)
class EvaluationRecord:
    """A quality measurement of the finished model, and of the dense model where it was measured too.

    Attributes:
        metric: The metric, such as `"perplexity"`.
        dataset: Data set, file or task.
        protocol: How it was measured, in words for a reader.
        after: The number of the pruned model; of the healed model where it was fine-tuned.
        before: The number of the dense model, by the same protocol; `None` where it was not measured.
        after_stderr: Standard error of `after`, over the examples.
        before_stderr: Standard error of `before`.
        difference_stderr: Standard error of the difference, computed from pairs of examples where these are known.
        num_examples: Number of examples; of windows for a perplexity.
        pruned: The number of the pruned model before it was healed, by the same protocol; `None` where it was not
            measured or the model was not healed.

    Raises:
        ReportError: If a number is NaN or infinite.

    Example:
        >>> EvaluationRecord("perplexity", "wikitext2", "windows of 2048 tokens", after=33.7, before=21.8).after
        33.7
    """

    metric: str
    dataset: str
    protocol: str
    after: float
    before: float | None = None
    after_stderr: Amount | None = None
    before_stderr: Amount | None = None
    difference_stderr: Amount | None = None
    num_examples: CountFromOne | None = None
    pruned: float | None = None

    def __post_init__(self) -> None:
        errors = (self.after_stderr, self.before_stderr, self.difference_stderr)
        for value in (self.after, self.before, self.pruned, *errors):
            if value is not None and not math.isfinite(value):
                raise ReportError(
                    f"The {self.metric} on {self.dataset} is {value}, which is no result; record finite numbers only."
                )


@dataclass(frozen=True)
class HealingRecord:
    """Fine-tuning of a pruned model to recover quality.

    Attributes:
        method: What was trained, such as `"full fine-tuning"` or `"LoRA of rank 16, merged"`.
        dataset: Data set, file or kind of object that it was trained on.
        steps: Steps of the optimizer.
        seconds: Duration of the training.
        tokens: Tokens that it was trained on, over all epochs; `None` where they were not counted.

    Example:
        >>> HealingRecord("full fine-tuning", "text.jsonl", steps=300, seconds=25.0, tokens=2_457_600).steps
        300
    """

    method: str
    dataset: str
    steps: Count
    seconds: Amount
    tokens: Count | None = None


@dataclass(frozen=True)
class SpeedRecord:
    """Speed of the finished model, and of the dense model timed alternately with it on the same device.

    Attributes:
        scenario: `"prompt"` or `"generation"`.
        protocol: What was run, in which precision and on which device, in words for a reader.
        unit: `"ms"` for a prompt (less is better), `"tokens/s"` for generation (more is better).
        after: Median of the pruned model, in this unit.
        before: Median of the dense model; `None` where it was not measured.
        after_spread: Quartiles of the pruned model, the lower number first.
        before_spread: Quartiles of the dense model.
        after_peak_bytes: Peak memory of the pruned model, weights included; `None` on a CPU.
        before_peak_bytes: Peak memory of the dense model.

    Raises:
        ReportError: If a number is not positive and finite.

    Example:
        >>> SpeedRecord("prompt", "1 x 2,048 tokens, no cache", "ms", after=80.0, before=100.0).speedup
        1.25
    """

    scenario: str
    protocol: str
    unit: str
    after: float
    before: float | None = None
    after_spread: tuple[float, ...] = ()
    before_spread: tuple[float, ...] = ()
    after_peak_bytes: Count | None = None
    before_peak_bytes: Count | None = None

    def __post_init__(self) -> None:
        for value in (self.after, self.before, *self.after_spread, *self.before_spread):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ReportError(
                    f"The speed of {self.scenario} is {value} {self.unit}, which is no result; record positive "
                    "numbers only."
                )

    @property
    def speedup(self) -> float | None:
        """Return how many times as fast as the dense model the pruned one is; `None` where that was not measured."""
        if self.before is None:
            return None
        return self.before / self.after if self.unit == "ms" else self.after / self.before
