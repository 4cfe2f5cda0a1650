"""A GGUF file of a pruned model, by llama.cpp's own converter. Nothing here needs torch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ..errors import ModelNotFoundError, UnsupportedModelError

CONVERTER = "convert_hf_to_gguf.py"


def find_converter(place: str | None) -> Path:
    """Return llama.cpp's converter: named itself or by its folder, or on the PATH."""
    found = shutil.which(CONVERTER) if place is None else os.path.join(place, CONVERTER)
    script = place if place is not None and os.path.isfile(place) else found
    if script is None or not os.path.isfile(script):
        where = "on the PATH" if place is None else f"at {place!r}"
        raise ModelNotFoundError(
            f"There is no {CONVERTER} of llama.cpp {where}; get llama.cpp's source, and name its folder (--llama-cpp)."
        )
    return Path(script)


def convert_to_gguf(folder: str, output: str, converter: Path, gguf_type: str = "auto") -> Path:
    """Have llama.cpp's converter write a model's folder as a GGUF file; whole, or not at all."""
    if not os.path.isfile(os.path.join(folder, "config.json")):
        raise ModelNotFoundError(
            f"There is no model in {folder!r}; name the folder that prune or remove wrote (--model)."
        )
    target = Path(os.path.abspath(output))
    fresh = target.with_name(f".{os.getpid()}.new.gguf")
    words = [sys.executable, str(converter), os.path.abspath(folder), "--outfile", str(fresh), "--outtype", gguf_type]
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode != 0 or not fresh.is_file():
            last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it said nothing")
            raise UnsupportedModelError(
                f"llama.cpp's converter {str(converter)!r} could not convert {folder!r} ({last.strip()[:500]}); "
                "install what llama.cpp's requirements name, or run it by hand for all that it says."
            )
        return fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
