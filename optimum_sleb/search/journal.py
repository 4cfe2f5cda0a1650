"""Journal of a search: measured losses, kept on disk while it runs, so that an interrupted search can be resumed."""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ..errors import ConfigError, JournalError, OutputFolderError
from ..report.folder import JOURNAL_FILE_NAME, lock_folder
from ..runtime.json import parse_dataclass, shown

if TYPE_CHECKING:  # what only checks for a journal does not wait for torch
    from torch import Tensor

# A search is deterministic, so its state is not saved: a resumed search starts from the beginning and reads every
# recorded measurement instead of repeating it. Fits of compensation are not recorded; they are repeated.
# Lines are only appended. If a run is killed while writing, the incomplete last line is dropped.

# Format 1 had no checksums, and no model config in its header.
_FORMAT = 2
_BEGINNING = f'{{"format": {_FORMAT}, '.encode()

# Every line ends in a checksum, so that one that was edited, cut or mixed up is not accepted.
_MARK = b', "checksum": "'
_END = b'"}'
# 32 bits: one in 4 billion damaged lines is not detected.
_DIGITS = 8

# A killed run loses the batches measured since the last write, at most this long, and the running batch.
SECONDS_BETWEEN_WRITES = 30.0


@dataclass(frozen=True)
class BatchRecord:
    """Losses of one batch of windows."""

    key: str  # made by `measurement_key`
    start: int  # window numbers, `stop` excluded
    stop: int
    losses: tuple[tuple[float, ...], ...]  # (candidates, windows), in nats
    block_passes: int  # counted once per window, as `head_passes`
    head_passes: int


def measurement_key(alive: Sequence[int], candidates: Sequence[int], windows: str) -> str:
    """Return a short hash of the remaining blocks, the candidates and the fingerprint of the windows."""
    return hashlib.sha256(json.dumps([list(alive), list(candidates), windows]).encode()).hexdigest()[:16]


def stacks_key(stacks: Sequence[Sequence[int]], windows: str) -> str:
    """Return a short hash of several stacks of remaining blocks and the fingerprint of the windows."""
    return hashlib.sha256(json.dumps([list(map(list, stacks)), windows]).encode()).hexdigest()[:16]


def check_journal(folder: str | Path, resume: bool) -> bool:
    """Return whether a folder holds a journal; raise JournalError if it does without `resume`, or not with it."""
    exists = os.path.isfile(Path(folder) / JOURNAL_FILE_NAME)
    if exists and not resume:
        raise JournalError(
            f"{folder} holds the journal of an earlier run; go on from it (resume=True, --resume), or delete "
            f"{JOURNAL_FILE_NAME} to start anew."
        )
    if resume and not exists:
        raise JournalError(f"There is no journal in {folder} to go on from; start without resume=True (--resume).")
    return exists


class Journal:
    """Journal file of a search in a folder (made if missing). `header` describes the run in JSON values.
    Raise JournalError if a journal exists and `resume` is false, or none exists and it is true, or the journal is
    damaged or of another run."""

    def __init__(self, folder: str | Path, header: dict[str, Any], *, resume: bool) -> None:
        self.path = Path(folder) / JOURNAL_FILE_NAME
        # Records read from the file, by key, with their line numbers.
        self._records: dict[str, list[tuple[int, BatchRecord]]] = {}
        self._pending: list[tuple[BatchRecord, Tensor]] = []
        self._last_write = time.monotonic()
        # Held until the journal is closed: two searches would mix their lines.
        with ExitStack() as held:
            try:
                held.enter_context(lock_folder(folder, seconds=0))
            except OutputFolderError as error:
                raise JournalError(f"The journal cannot be kept in {folder}: {error}") from error
            self._open(folder, {"format": _FORMAT, **header}, resume)
            self._held = held.pop_all()

    def _open(self, folder: str | Path, header: dict[str, Any], resume: bool) -> None:
        exists = check_journal(folder, resume)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if exists:
                self._read(json.loads(json.dumps(header)))
            self._file = self.path.open("a", encoding="utf-8")
            if not exists:
                self._append([header])
        except JournalError:  # it is an OSError too
            raise
        except OSError as error:
            raise JournalError(f"The journal cannot be kept in {folder} ({error}); choose another folder.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what is pending, and close the file. Raise JournalError if the disk refuses."""
        try:
            self.write()
        finally:
            self._file.close()
            self._held.close()

    def recorded(self, key: str, num_candidates: int, num_windows: int) -> dict[tuple[int, int], BatchRecord]:
        """Return the recorded batches of a measurement by (start, stop) of their windows; they do not overlap.
        Raise JournalError if a record does not fit the measurement."""
        known: dict[tuple[int, int], BatchRecord] = {}
        seen: set[int] = set()
        for number, record in self._records.get(key, ()):
            problem = _misfit(record, num_candidates, num_windows, seen)
            if problem is not None:
                raise self._damaged(number, problem)
            seen.update(range(record.start, record.stop))
            known[record.start, record.stop] = record
        return known

    def note(self, record: BatchRecord, losses: "Tensor") -> None:
        """Add a measured batch; `losses` (candidates, batch) may be on any device and are read only when
        written, so that the host does not wait after every batch. Write if the last write was half a minute ago."""
        self._pending.append((record, losses))
        if time.monotonic() - self._last_write > SECONDS_BETWEEN_WRITES:
            self.write()

    def write(self) -> None:
        """Write all pending batches and sync them to the disk. Raise JournalError if the disk refuses."""
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
        # A last line without newline was being written when the run was killed. Drop it.
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


def seal(row: dict[str, Any]) -> str:
    """Return a row as a JSON line (without newline), with its checksum as the last key.

    >>> seal({"start": 0, "stop": 4})
    '{"start": 0, "stop": 4, "checksum": "073f80d8"}'
    """
    body = json.dumps(row).encode().removesuffix(b"}")
    return (body + _MARK + _checksum(body) + _END).decode()


def unseal(line: bytes) -> Any:
    """Return the row of a line made by `seal`, without its checksum. Raise ValueError if the line was changed."""
    body, mark, checksum = line.rpartition(_MARK)
    if not mark:
        raise ValueError("it has no checksum")
    if checksum != _checksum(body) + _END:
        raise ValueError("its checksum is of another line")
    return json.loads(body + b"}")


def _misfit(record: BatchRecord, num_candidates: int, num_windows: int, seen: set[int]) -> str | None:
    """Describe why a record cannot belong to a measurement of which the windows `seen` are known; `None` if it can."""
    start, stop = record.start, record.stop
    if not 0 <= start < stop <= num_windows:
        return f"it is of windows {start} to {stop}, of {num_windows}"
    if len(record.losses) != num_candidates:
        return f"it has {len(record.losses)} rows of losses, of {num_candidates} blocks that were tried"
    misfits = [len(row) for row in record.losses if len(row) != stop - start]
    if misfits:
        return f"it has a row of {misfits[0]} losses, of {stop - start} windows"
    if not seen.isdisjoint(range(start, stop)):
        return f"a line before it has some of the windows {start} to {stop}"
    return None


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Yield the differences between two headers, in words."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            place = f"{path}.{shown(name)[1:-1]}" if path else shown(name)[1:-1]
            yield from _differences(old.get(name), new.get(name), place)
    elif old != new:
        yield f"{path} is {shown(old)} there and {shown(new)} here"


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:_DIGITS].encode()
