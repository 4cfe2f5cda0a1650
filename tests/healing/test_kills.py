"""Healing, killed at random moments and resumed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import ROOT
from .kill_driver import METHODS

KILLS = 8


@pytest.mark.reliability(
    "`kill -9` at random moments of a healing, resumed each time: LoRA, full, distillation with a written teacher",
    lost="nothing: the weights are identical",
)
@pytest.mark.long
@pytest.mark.tries(KILLS)
@pytest.mark.parametrize("method", METHODS)
def test_killed_at_random_moments(method: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.healing.kill_driver", str(tmp_path), str(KILLS), method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["kills"] == KILLS
    assert told["finished"] >= 1
