"""Heals a tiny model in several processes, and writes its weights; run by test_ranks.py through torchrun.

torchrun --nproc-per-node 2 -m tests.healing.ranks_driver FOLDER
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from optimum_sleb import heal

from ..families import tiny_model

IDS = torch.randint(3, 64, (32, 24), generator=torch.Generator().manual_seed(1))
METHODS = ("full", "lora", "distill")


def run(folder: Path, method: Any) -> None:
    settings: dict[str, Any] = {"lora": {"rank": 2}}.get(method, {})
    if method == "distill":
        settings = {"teacher": tiny_model(seed=1), "cache_teacher": folder / "teacher", "self_data": 8}
    model = tiny_model()
    numbers = {"steps": 4, "batch_size": 8, "window_length": 24}
    data = {"data": IDS, "learning_rate": 1e-3, "output_dir": folder / method, "disable_tqdm": True}
    heal(model, method=method, **data, **numbers, **settings)
    if int(os.environ.get("RANK", "0")) == 0:
        weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        save_file(weights, folder / f"{method}.safetensors")


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    for method in METHODS:
        run(folder, method)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)  # as in optimum_sleb/__main__.py
