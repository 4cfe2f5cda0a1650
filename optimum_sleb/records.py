"""What a report is made of: the data, the search, its steps, and what was measured afterwards."""

import math
from dataclasses import dataclass, field

from .errors import ReportError


@dataclass(frozen=True)
class CalibrationRecord:
    """The text on which a search measured.

    Attributes:
        source: Data set, file or kind of object.
        num_windows: Number of token windows.
        num_tokens: Tokens in all windows.
        window_length: Tokens in a window, BOS included; `None` where windows differ in length.
        bos_per_window: Whether a BOS token was put in front of every window.
        fingerprint: SHA-256 of the token ids, and of the labels where they were measured on.
        num_labels: Tokens that the loss was measured on, where labels said which; `None` where it was all of them.
    """

    source: str
    num_windows: int
    num_tokens: int
    window_length: int | None
    bos_per_window: bool
    fingerprint: str
    num_labels: int | None = None

    @property
    def num_counted(self) -> int:
        """Tokens by which a loss, summed over windows, becomes the logarithm of a perplexity."""
        return self.num_tokens if self.num_labels is None else self.num_labels + self.num_windows


@dataclass(frozen=True)
class SearchRecord:
    """How a search measured.

    Attributes:
        method: `"exact"`, `"racing"` or `"reference"`.
        reason: Why this method.
        dtype: Precision of the forward passes; losses are always summed from float32.
        device: Device of the model.
        block_passes: Decoder blocks run over the whole search, counted once for each window.
        loss_before: Calibration loss of the model as it came, in nats, summed over windows.
        exact_block_passes: After a race, what the exact search would have run for the same removals.
        batch_size: Windows in one forward pass, in the end.
        compilation: What was compiled, or why nothing was.
        compile_seconds: What compiling and comparing took, where it was tried.
        offload: Why blocks were brought to the device one at a time; `None` where the device held the whole model.
        processes: Processes that searched together.
    """

    method: str
    reason: str
    dtype: str
    device: str
    block_passes: int
    loss_before: float
    exact_block_passes: int | None = None
    batch_size: int | None = None
    compilation: str | None = None
    compile_seconds: float | None = None
    offload: str | None = None
    processes: int = 1


@dataclass(frozen=True)
class StepRecord:
    """One removal. Blocks are named by their number in the original, dense model.

    Attributes:
        block: The block that was removed.
        candidate_losses: Calibration loss in nats, summed over windows, without each of the candidates that were
            measured on all windows; empty where the block was removed by order, without a search.
        seconds: Duration of the step; `None` without a search.
        barred_blocks: Candidates with a lower loss that could not be removed together with the blocks removed before,
            and why.
        dropped_blocks: Candidates that a race gave up as surely worse, and after how many windows.
        non_finite_blocks: Candidates without which the loss is NaN or infinite, and in which window first.
        compensated_loss: Calibration loss after this removal and the compensation of all cuts, where they were
            compensated then.
    """

    block: int
    candidate_losses: dict[int, float] = field(default_factory=dict)
    seconds: float | None = None
    barred_blocks: dict[int, str] = field(default_factory=dict)
    dropped_blocks: dict[int, int] = field(default_factory=dict)
    non_finite_blocks: dict[int, int] = field(default_factory=dict)
    compensated_loss: float | None = None

    @property
    def loss(self) -> float | None:
        """Calibration loss after this removal, before compensation; `None` where there was no search."""
        return self.candidate_losses.get(self.block)

    @property
    def final_loss(self) -> float | None:
        """Calibration loss of the model that this removal gave, compensated or not; `None` without a search."""
        return self.loss if self.compensated_loss is None else self.compensated_loss


@dataclass(frozen=True)
class WeightsRecord:
    """A sample of a model's weights, by which another model of the same shape is told apart; see `weights_record`.

    Attributes:
        epsilon: Machine epsilon of the precision that the model was in.
        values: One weight from each of many parameters, by the parameter's name.
    """

    epsilon: float
    values: dict[str, float]


@dataclass(frozen=True)
class CutRecord:
    """How the gap behind a block was compensated. Blocks are named by their number in the original, dense model.

    Attributes:
        block: The block before the gap; `None` where the first blocks are gone, so that nothing stands before it.
        gap: The blocks that are missing.
        loss_before: Loss on the held-back windows, in nats, summed, before this cut was compensated.
        loss_after: The same afterwards; not higher, for a map that does not lower it is not kept.
        kept: The map that was kept; `None` where none was.
        tried: Loss on the held-back windows with each map that was tried; those that gave no finite loss are left out.
        module: Module into which the map was folded, inside the block.
        reason: Why no map could be tried.
    """

    block: int | None
    gap: tuple[int, ...]
    loss_before: float
    loss_after: float
    kept: str | None = None
    tried: dict[str, float] = field(default_factory=dict)
    module: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class CompensationRecord:
    """How the cuts of a model were compensated.

    Attributes:
        num_fit_windows: Calibration windows that the maps were fitted on.
        num_held_back_windows: Calibration windows that they were verified on.
        held_back_tokens: Tokens in the held-back windows, by which their losses become perplexities.
        cuts: The cuts, from the bottom of the stack up.
        seconds: What fitting and verifying took.
    """

    num_fit_windows: int
    num_held_back_windows: int
    held_back_tokens: int
    cuts: tuple[CutRecord, ...]
    seconds: float


@dataclass(frozen=True)
class EvaluationRecord:
    """A number that was measured on the finished model, and on the dense one where it was measured too.

    Attributes:
        metric: What was measured, such as `"perplexity"`.
        dataset: Data set, file or task.
        protocol: How it was measured, for a reader.
        after: The number of the pruned model.
        before: The number of the dense model, by the same protocol; `None` where it was not measured.
        after_stderr: Standard error of the pruned model's number over the examples.
        before_stderr: That of the dense model's number.
        difference_stderr: That of their difference, example by example where the examples are known.
        num_examples: Number of examples, for a perplexity of windows.
        pruned: Of a model that was healed, the number before that, by the same protocol; `None` where it was not
            measured, or nothing was healed. `after` is then the healed model's.

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
    after_stderr: float | None = None
    before_stderr: float | None = None
    difference_stderr: float | None = None
    num_examples: int | None = None
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
    """How a pruned model was fine-tuned, to make up for what it lost.

    Attributes:
        method: What was trained, such as `"full fine-tuning"` or `"LoRA of rank 16, merged"`.
        dataset: Data set, file or kind of object that it was trained on.
        steps: Steps of the optimizer.
        seconds: Duration of the training.
        tokens: Tokens that it was trained on, those of every epoch; `None` where they were not counted.

    Example:
        >>> HealingRecord("full fine-tuning", "text.jsonl", steps=300, seconds=25.0, tokens=2_457_600).steps
        300
    """

    method: str
    dataset: str
    steps: int
    seconds: float
    tokens: int | None = None


@dataclass(frozen=True)
class SpeedRecord:
    """How fast the finished model is, and the dense one beside it, in the same minutes on the same device.

    Attributes:
        scenario: `"prompt"` or `"generation"`.
        protocol: What was run, in which precision and on which device, for a reader.
        unit: `"ms"` for a prompt, of which less is better, or `"tokens/s"`, of which more is.
        after: The median of the pruned model, in this unit.
        before: The median of the dense model; `None` where it was not measured.
        after_spread: Quartiles of the pruned model, the lower number first.
        before_spread: Quartiles of the dense model.
        after_peak_bytes: Memory that the pruned model needed at most, its weights included; `None` on a CPU.
        before_peak_bytes: The same of the dense model.

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
    after_peak_bytes: int | None = None
    before_peak_bytes: int | None = None

    def __post_init__(self) -> None:
        for value in (self.after, self.before, *self.after_spread, *self.before_spread):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ReportError(
                    f"The speed of {self.scenario} is {value} {self.unit}, which is no result; record positive "
                    "numbers only."
                )

    @property
    def speedup(self) -> float | None:
        """By how much the pruned model is faster than the dense one; `None` where that was not measured."""
        if self.before is None:
            return None
        return self.before / self.after if self.unit == "ms" else self.after / self.before
