"""Pruning, saving and updating of cards, killed at random moments."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = 200


@pytest.mark.reliability(
    "`kill -9` at random moments of pruning, saving and updating the card of one folder, in turn",
    lost="nothing: whole models, measurements, the journal and files of the user",
)
@pytest.mark.slow
@pytest.mark.tries(KILLS)
def test_killed_at_random_moments(tmp_path: Path) -> None:
    driver = Path(__file__).with_name("kill_driver.py")
    done = subprocess.run(
        [sys.executable, str(driver), str(tmp_path), str(KILLS)], capture_output=True, text=True, timeout=850
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1])["kills"] == KILLS
