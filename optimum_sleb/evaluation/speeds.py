"""Results of a benchmark: times, speed-up, and the speed-up that could be reached."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..report.records import SpeedRecord
from ..runtime.table import text_table
from .scenarios import Scenario
from .time_shares import TimeShares
from .timing import Timing


@dataclass(frozen=True)
class ModelSpeed:
    """Speed and memory of one model in one scenario."""

    timing: Timing  # its peak memory does not include the weights
    num_blocks: int
    weight_bytes: int
    parts: TimeShares | None = None  # None if compiled; of two models, measured on the dense one only

    @property
    def peak_bytes(self) -> int | None:
        """Peak memory in bytes, weights included; `None` on a CPU."""
        return None if self.timing.peak_bytes is None else self.timing.peak_bytes + self.weight_bytes


@dataclass(frozen=True)
class Speed:
    """Speed of a model in one scenario, and of the dense model timed in turns with it."""

    scenario: Scenario
    place: str  # precision and device, in words
    pruned: ModelSpeed  # any model, if it was timed alone
    dense: ModelSpeed | None = None

    @property
    def speedup(self) -> float | None:
        """Median time of the dense model over that of the model; `None` without a dense model."""
        return None if self.dense is None else self.dense.timing.median / self.pruned.timing.median

    @property
    def ideal(self) -> float | None:
        """Speed-up if the blocks took all the time: dense blocks over remaining blocks."""
        return None if self.dense is None else self.dense.num_blocks / self.pruned.num_blocks

    @property
    def expected(self) -> float | None:
        """Speed-up that the measured share of the blocks allows; `None` if it was not measured."""
        if self.dense is None or self.dense.parts is None:
            return None
        return self.dense.parts.expected_speedup(self.dense.num_blocks, self.pruned.num_blocks)

    def record(self) -> SpeedRecord:
        """Return the record for report and model card: ms for a prompt, tokens/s for generation."""
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
        """Return a sentence that compares the speed-up with the ideal; empty without a dense model."""
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
    """Return the speeds as lines of text: medians, with the quartiles in brackets."""
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
