"""How long the first token windows of large data take, and how much memory.

    python benchmarks/reading.py --tokenizer FOLDER

Each case runs in a process of its own, which has the tokenizer loaded and the libraries imported; the seconds are
those of reading, tokenising and cutting 128 windows of 2048 tokens, the memory is what that takes at most beyond.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import IO, Any

GIGABYTE = 10**9
DOCUMENT = " ".join(f"word{number % 997} and {number * 7919 % 10_007}," for number in range(100)) + " the end."


def rows(size: int) -> Iterator[str]:
    """Documents that are not alike, until they have so many bytes."""
    for number in cycle(range(10**6)):
        if size <= 0:
            return
        document = f"{number} {DOCUMENT[number % 50 :]}"
        size -= len(document)
        yield document


def write_jsonl(file: IO[str], size: int) -> None:
    """A line for each document."""
    for document in rows(size):
        file.write(json.dumps({"text": document}) + "\n")


def write_csv(file: IO[str], size: int) -> None:
    """A line for each document, in quotes."""
    file.write("text\n")
    for document in rows(size):
        file.write(f'"{document}"\n')


def write_line(file: IO[str], size: int) -> None:
    """All documents in one line."""
    for document in rows(size):
        file.write(document + " ")


FILES: dict[str, Callable[[IO[str], int], None]] = {"jsonl": write_jsonl, "csv": write_csv, "txt": write_line}
STREAM = "stream"


def memory(field: str) -> int:
    """Bytes that this process holds (VmRSS), or held at most (VmHWM)."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) * 1024


def measure(case: str, path: Path, tokenizer_folder: Path) -> None:
    """Load the windows of one case, and print what it took."""
    import datasets
    from transformers import AutoTokenizer

    from optimum_sleb import SLEBConfig, SLEBPruner  # noqa: F401 - what a run has imported by then
    from optimum_sleb.calibration.sources import load_calibration

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer("warm up")
    data: Any = path
    if case == STREAM:
        data = datasets.IterableDataset.from_generator(lambda: ({"text": document} for document in rows(10**18)))
    before, began = memory("VmRSS"), time.perf_counter()
    loaded = load_calibration(data, tokenizer, SLEBConfig(sparsity=0.2))
    seconds = time.perf_counter() - began
    assert len(loaded.windows) == 128
    print(json.dumps({"seconds": seconds, "bytes": max(memory("VmHWM") - before, 0)}))


def main() -> None:
    """Write the files, measure each case, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--size", type=int, default=GIGABYTE)
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        measure(arguments.case[0], Path(arguments.case[1]), arguments.tokenizer)
        return
    print("| data | first windows, s | memory beyond, MB |\n|---|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for case in (*FILES, STREAM):
            path = Path(folder) / f"data.{case}"
            if case in FILES:
                with open(path, "w", encoding="utf-8") as file:
                    FILES[case](file, arguments.size)
            command = [sys.executable, __file__, "--tokenizer", str(arguments.tokenizer), "--case", case, str(path)]
            result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            size = "endless" if case == STREAM else f"{arguments.size / 1e9:.1f} GB"
            print(f"| {case}, {size} | {result['seconds']:.2f} | {result['bytes'] / 1e6:.0f} |", flush=True)
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
