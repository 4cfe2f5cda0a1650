"""Two processes heal as one does: the same rows in each step, shared out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ..conftest import ROOT
from .ranks_driver import METHODS, main

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.long
def test_two_processes(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    main(one)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "tests.healing.ranks_driver", str(two)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    for method in METHODS:
        alone, shared = (load_file(folder / f"{method}.safetensors") for folder in (one, two))
        for name, tensor in alone.items():
            assert torch.allclose(tensor, shared[name], atol=1e-5), (method, name)
