"""The examples, run as they stand, with a tiny model in the place of a large one."""

import subprocess
import sys
from pathlib import Path

from transformers import AutoModelForCausalLM

from optimum_sleb import PruningReport

from .conftest import ROOT
from .hub.local_hub import LocalHub


def test_push_to_hub(hub: LocalHub, model_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "examples" / "push_to_hub.py", model_folder, tmp_path / "out", "--repo", "me/a"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"pushed to {hub.url}/me/a/commit/" in done.stdout
    (record,) = PruningReport.load(tmp_path / "out").evaluations
    assert f"{record.before:.2f} before, {record.after:.2f} after" in done.stdout
    assert f"| {record.before:.2f} | {record.after:.2f} |" in hub.files("me/a")["README.md"].decode()
    assert AutoModelForCausalLM.from_pretrained("me/a").config.num_hidden_layers == 4
