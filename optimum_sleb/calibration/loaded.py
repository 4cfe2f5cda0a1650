"""Token windows with their origin."""

from dataclasses import dataclass

from ..report.records import CalibrationRecord
from .windows import TokenWindows


@dataclass(frozen=True)
class LoadedWindows:
    """Token windows, and what the report says of where they are from."""

    windows: TokenWindows
    source: str  # the data set, file or kind of object
    bos_per_window: bool  # a BOS token was put at the start of each window

    def record(self) -> CalibrationRecord:
        """Return the entry about these windows for the report."""
        lengths = set(self.windows.lengths)
        return CalibrationRecord(
            source=self.source,
            num_windows=len(self.windows),
            num_tokens=self.windows.num_tokens,
            window_length=lengths.pop() if len(lengths) == 1 else None,
            bos_per_window=self.bos_per_window,
            fingerprint=self.windows.fingerprint,
            num_labels=self.windows.num_labels,
        )
