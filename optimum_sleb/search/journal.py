"""The journal: what a search has measured, kept on disk as it goes, so that a run that died goes on from there.

A search is deterministic, so it need not save its state: a run that is resumed starts from the beginning, and every
measurement that the journal knows is read instead of made. Fits of compensation are not kept, and are made again.

Lines are only ever appended, and synced to the disk; of a run that was killed while writing, the last line may be
torn, and is dropped.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from ..errors import ConfigError, JournalError
from ..plain import parse_dataclass
from ..report import JOURNAL_FILE_NAME
from .sealed_lines import seal, unseal

# The first had no checksums, and no config of the model in its header.
_FORMAT = 2
_BEGINNING = f'{{"format": {_FORMAT}, '.encode()

# A kill loses what ended in less than this since the last writing, and the batch that was running.
SECONDS_BETWEEN_WRITES = 30.0


@dataclass(frozen=True)
class BatchRecord:
    """The losses of one batch of windows.

    Attributes:
        key: Which measurement this is a part of; see `measurement_key`.
        start: Place of the first window of the batch.
        stop: Place behind the last.
        losses: The loss of each window without each candidate: a row for each candidate.
        block_passes: Decoder blocks that were run.
        head_passes: Heads that were run.
    """

    key: str
    start: int
    stop: int
    losses: tuple[tuple[float, ...], ...]
    block_passes: int
    head_passes: int


def measurement_key(alive: Sequence[int], candidates: Sequence[int], windows: str) -> str:
    """A name for what is measured.

    Args:
        alive: Indices of the blocks that are there.
        candidates: Those of them that are tried.
        windows: Fingerprint of the windows.

    Returns:
        The name.

    Example:
        >>> measurement_key([0, 1, 2], [1], "abc") == measurement_key((0, 1, 2), (1,), "abc")
        True
    """
    return hashlib.sha256(json.dumps([list(alive), list(candidates), windows]).encode()).hexdigest()[:16]


class Journal:
    """Progress of a search in a folder.

    Args:
        folder: The folder; it is made if it does not exist.
        header: What the run is about: model, data, recipe, versions. Plain values.
        resume: Go on from a journal that is there. Without, there must be none.

    Raises:
        JournalError: If there is a journal and `resume` is not set, or none and it is, or it is of another run, or
            it is damaged.

    Example:
        ```python
        with Journal("smollm2-sleb-20", header, resume=True) as journal:
            journal.recorded(key, num_candidates=28, num_windows=64)
        ```
    """

    def __init__(self, folder: str | Path, header: dict[str, Any], *, resume: bool) -> None:
        self.path = Path(folder) / JOURNAL_FILE_NAME
        # What was read, by its key, with the numbers of the lines.
        self._records: dict[str, list[tuple[int, BatchRecord]]] = {}
        self._pending: list[tuple[BatchRecord, Tensor]] = []
        self._last_write = time.monotonic()
        exists = self.path.is_file()
        if exists and not resume:
            raise JournalError(
                f"{folder} holds the journal of an earlier run; go on from it (resume=True, --resume), or delete "
                f"{JOURNAL_FILE_NAME} to start anew."
            )
        if resume and not exists:
            raise JournalError(f"There is no journal in {folder} to go on from; start without resume=True (--resume).")
        header = {"format": _FORMAT, **header}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if exists:
                self._read(json.loads(json.dumps(header)))
            self._file = self.path.open("a", encoding="utf-8")
            if not exists:
                self._append([header])
        except JournalError:  # an OSError too
            raise
        except OSError as error:
            raise JournalError(f"The journal cannot be kept in {folder} ({error}); choose another folder.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what was noted, and end.

        Raises:
            JournalError: If the disk does not take it.

        Example:
            ```python
            journal.close()
            ```
        """
        try:
            self.write()
        finally:
            self._file.close()

    def recorded(self, key: str, num_candidates: int, num_windows: int) -> dict[tuple[int, int], BatchRecord]:
        """What is known of a measurement.

        Args:
            key: Which one.
            num_candidates: Candidates that it measures.
            num_windows: Windows that it measures them on.

        Returns:
            Batches, by the places of their windows; no window is in two of them.

        Raises:
            JournalError: If what was read does not fit the measurement.

        Example:
            ```python
            journal.recorded(key, num_candidates=28, num_windows=64).get((0, 4))
            ```
        """
        known: dict[tuple[int, int], BatchRecord] = {}
        seen: set[int] = set()
        for number, record in self._records.get(key, ()):
            problem = _misfit(record, num_candidates, num_windows, seen)
            if problem is not None:
                raise self._damaged(number, problem)
            seen.update(range(record.start, record.stop))
            known[record.start, record.stop] = record
        return known

    def note(self, record: BatchRecord, losses: Tensor) -> None:
        """Take up a batch that was measured. It is written with the first batch that is noted more than half a minute
        after the last writing, or when the measurement or the run ends.

        Args:
            record: What to write; its losses are filled in when it is written.
            losses: The losses, on any device, of shape (candidates, batch). They are not read before they are written,
                so that the host does not wait for the device after every batch.

        Example:
            ```python
            journal.note(BatchRecord(key, 0, 4, (), 100, 28), losses[:, 0:4])
            ```
        """
        self._pending.append((record, losses))
        if time.monotonic() - self._last_write > SECONDS_BETWEEN_WRITES:
            self.write()

    def write(self) -> None:
        """Put everything that was noted on the disk.

        Raises:
            JournalError: If the disk does not take it.

        Example:
            ```python
            journal.write()
            ```
        """
        pending, self._pending = self._pending, []
        rows = [asdict(record) | {"losses": losses.tolist()} for record, losses in pending]
        try:
            self._append(rows)
        except OSError as error:
            raise JournalError(
                f"The journal {self.path} cannot be written ({error}); make room and go on with resume=True "
                "(--resume)."
            ) from error
        self._last_write = time.monotonic()

    def _append(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            self._file.write(seal(row) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self, header: dict[str, Any]) -> None:
        whole = self.path.read_bytes()
        # A line that does not end was being written when the run died. The next must start on a line of its own.
        complete = whole[: whole.rfind(b"\n") + 1]
        if len(complete) < len(whole):
            with self.path.open("r+b") as file:
                file.truncate(len(complete))
        lines = complete.splitlines()
        if not lines:
            raise JournalError(f"The journal {self.path} is empty; delete it and start anew.")
        if not lines[0].startswith(_BEGINNING):
            raise JournalError(
                f"The journal {self.path} begins with {lines[0][:20].decode(errors='replace')!r}, not with "
                f"{_BEGINNING.decode()!r}: it is of another version of optimum_sleb, or damaged; go on with the "
                "version that began it, or delete it to start anew."
            )
        rows = [self._parse(number, line) for number, line in enumerate(lines, start=1)]
        differences = list(_differences(rows[0], header))
        if differences:
            raise JournalError(
                f"The journal {self.path} is of another run: {'; '.join(differences[:3])}. Repeat that run's "
                "settings, or delete the journal to start anew."
            )
        for number, row in enumerate(rows[1:], start=2):
            try:
                record = parse_dataclass(BatchRecord, row, f"line {number}")
            except (ConfigError, ValueError) as error:
                raise self._damaged(number, error) from error
            self._records.setdefault(record.key, []).append((number, record))

    def _parse(self, number: int, line: bytes) -> Any:
        try:
            return unseal(line)
        except (ValueError, RecursionError) as error:
            raise self._damaged(number, error) from error

    def _damaged(self, number: int, reason: object) -> JournalError:
        remedy = "delete that line and all after it to go on from there, or the whole file to start anew"
        return JournalError(
            f"The journal {self.path} is damaged in line {number} ({reason}); "
            f"{'delete it to start anew' if number == 1 else remedy}."
        )


def _misfit(record: BatchRecord, num_candidates: int, num_windows: int, seen: set[int]) -> str | None:
    """Why a record cannot be of a measurement, of which some windows were seen before."""
    start, stop = record.start, record.stop
    if not 0 <= start < stop <= num_windows:
        return f"it is of windows {start} to {stop}, of {num_windows}"
    if len(record.losses) != num_candidates:
        return f"it has {len(record.losses)} rows of losses, of {num_candidates} blocks that were tried"
    odd = [len(row) for row in record.losses if len(row) != stop - start]
    if odd:
        return f"it has a row of {odd[0]} losses, of {stop - start} windows"
    if not seen.isdisjoint(range(start, stop)):
        return f"a line before it has some of the windows {start} to {stop}"
    return None


def _differences(old: Any, new: Any, place: str = "") -> Iterator[str]:
    """Where two headers differ, in words."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(name), new.get(name), f"{place}.{name}" if place else name)
    elif old != new:
        yield f"{place} is {old!r} there and {new!r} here"
