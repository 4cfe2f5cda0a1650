"""Token windows with their origin."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..report.records import CalibrationRecord
from .windows import TokenWindows


@dataclass(frozen=True)
class LoadedWindows:
    """Token windows, and what the report says of where they are from."""

    windows: TokenWindows
    source: str  # the data set, file or kind of object
    bos_per_window: bool  # a BOS token was put at the start of each window
    columns: str | None = None  # the columns of the rows that were read, and how, in words; None where there are none

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
            columns=self.columns,
        )


def joined_windows(parts: Sequence[LoadedWindows], source: str) -> LoadedWindows:
    """Put the windows of several sources one behind the other; they were measured on the same loss."""
    windows = tuple(window for part in parts for window in part.windows.windows)
    targets = [part.windows.targets for part in parts]
    rows = tuple(row for part in targets if part is not None for row in part)
    columns = dict.fromkeys(part.columns for part in parts if part.columns is not None)
    return LoadedWindows(
        TokenWindows(windows, None if None in targets else rows),
        source,
        all(part.bos_per_window for part in parts),
        "; ".join(columns) or None,
    )
