"""Tensors by the numbers of rows, written in shards: what an interrupted pass has finished is not computed again."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import JournalError
from .headers import open_header

_HEADER = "pass.json"


class Shards:
    """A folder with tensors of each row, and a header that says what they were computed from."""

    def __init__(self, folder: Path, header: dict[str, Any], num_rows: int, rows_per_shard: int) -> None:
        """Open a folder, or make it; refuse one that was computed from something else."""
        self._folder = folder
        self._rows_per_shard = rows_per_shard
        self._spans = [
            range(start, min(start + rows_per_shard, num_rows)) for start in range(0, num_rows, rows_per_shard)
        ]
        header = {**header, "num_rows": num_rows, "rows_per_shard": rows_per_shard}
        found = open_header(folder / _HEADER, header) or header
        for name, value in header.items():
            if found[name] != value:
                raise JournalError(
                    f"{folder} was computed with {name}={found[name]!r}, but now it is {value!r}; name another "
                    "folder, or remove this one."
                )

    def missing(self) -> list[range]:
        """Return the spans of rows that are still to be computed, one for each shard."""
        return [span for number, span in enumerate(self._spans) if not self._file(number).is_file()]

    def write(self, span: range, rows: list[dict[str, Tensor]]) -> None:
        """Write the tensors of a span of rows, whole or not at all."""
        file = self._file(span.start // self._rows_per_shard)
        fresh = file.with_suffix(f".{os.getpid()}.new")
        tensors = {
            f"{row}.{name}": tensor.contiguous()
            for row, of_row in zip(span, rows, strict=True)
            for name, tensor in of_row.items()
        }
        try:
            save_file(tensors, fresh)
            fresh.replace(file)
        except (OSError, SafetensorError) as error:
            fresh.unlink(missing_ok=True)
            raise JournalError(
                f"{file} cannot be written ({error}); make room there, or remove what is in the way, and try again."
            ) from error

    def fill(self, compute: Callable[[range], list[dict[str, Tensor]]], on_progress: Callable[[int], object]) -> None:
        """Compute what is missing, shard by shard; `on_progress` gets the number of rows that are there."""
        missing = self.missing()
        done = sum(map(len, self._spans)) - sum(map(len, missing))
        for span in missing:
            self.write(span, compute(span))
            done += len(span)
            on_progress(done)

    def row(self, number: int) -> dict[str, Tensor]:
        """Return the tensors of one row; the file is mapped, not read as a whole."""
        file = self._file(number // self._rows_per_shard)
        prefix = f"{number}."
        try:
            with safe_open(file, "pt") as opened:
                names = [name for name in opened.keys() if name.startswith(prefix)]  # noqa: SIM118 - no mapping
                return {name.removeprefix(prefix): opened.get_tensor(name) for name in names}
        except (OSError, SafetensorError) as error:
            raise JournalError(f"{file} cannot be read ({error}); remove it, and it is computed again.") from error

    def _file(self, number: int) -> Path:
        return self._folder / f"rows-{number:05d}.safetensors"
