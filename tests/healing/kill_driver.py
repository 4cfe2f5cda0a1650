"""Heals in child processes that are killed at random moments, and resumed; the weights must be as uninterrupted.

    python -m tests.healing.kill_driver FOLDER NUMBER_OF_KILLS METHOD

Children are forked from this process, which has imported everything and computed nothing.
"""

import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import datasets
import torch
import transformers
from safetensors.torch import load_file, save_file

from optimum_sleb import heal
from optimum_sleb.healing.checkpoints import last_checkpoint

from ..families import tiny_model

IDS = torch.randint(3, 64, (64, 16), generator=torch.Generator().manual_seed(1))
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"method": "lora", "rank": 2},
    "full": {"method": "full"},
    "distill": {"method": "distill", "cache_teacher": "teacher", "teacher_top_k": 4},
}


def run(folder: Path, method: str) -> None:
    """Heal a model with dropout, going on where an earlier life got to, and write its weights."""
    settings = dict(METHODS[method])
    if "cache_teacher" in settings:
        settings |= {"cache_teacher": folder / "teacher", "teacher": tiny_model(seed=1)}
    model = tiny_model(attention_dropout=0.1)
    heal(
        model,
        data=IDS,
        steps=60,
        batch_size=4,
        window_length=16,
        save_steps=3,
        output_dir=folder / "run",
        resume=True,
        disable_tqdm=True,
        **settings,
    )
    fresh = folder / "weights.new"
    save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, fresh)
    fresh.rename(folder / "weights")


def start(folder: Path, method: str) -> int:
    child = os.fork()
    if child == 0:
        try:
            run(folder, method)
            os._exit(0)
        finally:
            os._exit(1)
    return child


def same(one: Path, other: Path) -> bool:
    first, second = load_file(one / "weights"), load_file(other / "weights")
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def main(folder: Path, kills: int, method: str) -> None:
    torch.set_num_threads(1)  # threads would not survive a fork
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    whole, moments = folder / "whole", random.Random(0)
    whole.mkdir()
    began = time.perf_counter()
    assert os.waitpid(start(whole, method), 0)[1] == 0
    duration = time.perf_counter() - began
    killed = finished = steps = 0
    while killed < kills or not finished:
        place = folder / f"killed-{finished}"
        place.mkdir(exist_ok=True)
        child = start(place, method)
        if killed < kills:
            time.sleep(moments.uniform(0.0, 0.5 * duration))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        killed += os.WIFSIGNALED(status)
        if not os.WIFSIGNALED(status):
            assert status == 0, "a healing failed"
            assert same(whole, place), "other weights than uninterrupted"
            finished += 1
        checkpoint, _ = last_checkpoint(place / "run")
        steps = max(steps, int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0)
    print(json.dumps({"kills": killed, "finished": finished, "steps": steps, "seconds": duration}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
