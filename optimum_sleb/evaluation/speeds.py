"""What a benchmark gives: how fast a model is, what it gains, and how much it could gain."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..records import SpeedRecord
from .parts import Parts
from .scenarios import Scenario
from .table import text_table
from .timing import Timing


@dataclass(frozen=True)
class ModelSpeed:
    """How fast one model was in one scenario.

    Attributes:
        timing: Its times, and the memory that it needed beyond its weights.
        num_blocks: Number of its decoder blocks.
        weight_bytes: Bytes of its weights in memory.
        parts: What its time went to; `None` where a dense model's was measured instead, or it was compiled.
    """

    timing: Timing
    num_blocks: int
    weight_bytes: int
    parts: Parts | None = None

    @property
    def peak_bytes(self) -> int | None:
        """Memory that it needed at most, its weights included; `None` on a CPU."""
        return None if self.timing.peak_bytes is None else self.timing.peak_bytes + self.weight_bytes


@dataclass(frozen=True)
class Speed:
    """How fast a model was in one scenario, and the dense model in turns with it.

    Attributes:
        scenario: What was run.
        place: Precision and device, in words.
        pruned: The model.
        dense: The model that it is compared with.
    """

    scenario: Scenario
    place: str
    pruned: ModelSpeed
    dense: ModelSpeed | None = None

    @property
    def speedup(self) -> float | None:
        """By how much the model is faster than the dense one."""
        return None if self.dense is None else self.dense.timing.median / self.pruned.timing.median

    @property
    def ideal(self) -> float | None:
        """The speed-up if all time were the blocks': dense blocks over pruned blocks."""
        return None if self.dense is None else self.dense.num_blocks / self.pruned.num_blocks

    @property
    def expected(self) -> float | None:
        """The speed-up by the share of the time that the dense model spends in its blocks."""
        if self.dense is None or self.dense.parts is None:
            return None
        return self.dense.parts.expected_speedup(self.dense.num_blocks, self.pruned.num_blocks)

    def record(self) -> SpeedRecord:
        """The measurement as report and card keep it.

        Returns:
            The record: milliseconds of a prompt, tokens a second of generation.

        Example:
            ```python
            record_evaluations("smollm2-sleb-20", speeds=[speed.record() for speed in speeds])
            ```
        """
        in_ms = self.scenario.kind == "prompt"

        def spread(of: ModelSpeed | None) -> tuple[float, ...]:
            return () if of is None else tuple(sorted(map(self._in_unit, of.timing.spread)))

        return SpeedRecord(
            scenario=self.scenario.kind,
            protocol=f"{self.scenario.protocol}, {self.place}",
            unit="ms" if in_ms else "tokens/s",
            after=self._in_unit(self.pruned.timing.median),
            before=None if self.dense is None else self._in_unit(self.dense.timing.median),
            after_spread=spread(self.pruned),
            before_spread=spread(self.dense),
            after_peak_bytes=self.pruned.peak_bytes,
            before_peak_bytes=None if self.dense is None else self.dense.peak_bytes,
        )

    def explanation(self) -> str:
        """How close the speed-up is to the ideal, and what takes the rest.

        Returns:
            A sentence; empty where nothing was compared.

        Example:
            ```python
            print(speed.explanation())
            ```
        """
        if self.dense is None or self.speedup is None or self.ideal is None:
            return ""
        blocks = f"{self.dense.num_blocks}/{self.pruned.num_blocks} blocks"
        name = f"{self.scenario.kind}, {self.scenario.protocol}"
        text = f"{name}: {self.speedup:.2f}x of {self.ideal:.2f}x ({blocks})"
        parts = self.dense.parts
        if parts is None or self.expected is None:
            return f"{text}."
        text += (
            f". The dense model spends {parts.blocks:.0%} of its time in the blocks, {parts.head:.0%} in the head, "
            f"{parts.rest:.0%} elsewhere, by which {self.expected:.2f}x are to be expected"
        )
        return (
            f"{text}." if parts.idle is None else f"{text}; its GPU waits for launches {parts.idle:.0%} of the time."
        )

    def _in_unit(self, seconds: float) -> float:
        return seconds * 1000 if self.scenario.kind == "prompt" else self.scenario.tokens / seconds


def speed_table(speeds: Sequence[Speed]) -> str:
    """The speeds of one model, or of two side by side.

    Args:
        speeds: The measurements.

    Returns:
        Lines of text, without a final line break: medians, with the quartiles in brackets.

    Example:
        ```python
        print(speed_table(benchmark(pruned, dense)))
        ```
    """
    compared = any(speed.dense is not None for speed in speeds)
    rows = [["scenario", "", *(["dense", "pruned", "ratio"] if compared else ["model"])]]
    for speed in speeds:
        record = speed.record()
        name = f"{speed.scenario.kind}, {speed.scenario.protocol}"
        times = [_spread(record.after, record.after_spread)]
        memory = [_gigabytes(record.after_peak_bytes)]
        weights = [_gigabytes(speed.pruned.weight_bytes)]
        if speed.dense is not None and record.before is not None:
            dense, pruned = speed.dense, speed.pruned
            times = [_spread(record.before, record.before_spread), *times, f"{record.speedup:.2f}x"]
            memory = [_gigabytes(dense.peak_bytes), *memory, _ratio(dense.peak_bytes, pruned.peak_bytes)]
            weights = [_gigabytes(dense.weight_bytes), *weights, _ratio(dense.weight_bytes, pruned.weight_bytes)]
        rows.append([name, record.unit, *times])
        if record.after_peak_bytes is not None:
            rows.append(["", "GB at most", *memory])
        if speed is speeds[-1]:
            rows.append(["weights", "GB", *weights])
    return text_table(rows)


def _spread(median: float, quartiles: tuple[float, ...]) -> str:
    digits = 1 if median >= 10 else 3
    return f"{median:,.{digits}f} ({', '.join(f'{value:,.{digits}f}' for value in quartiles)})"


def _gigabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e9:.3f}"


def _ratio(dense: int | None, pruned: int | None) -> str:
    return "" if not dense or not pruned else f"{dense / pruned:.2f}x"
