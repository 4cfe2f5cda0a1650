"""Trains a tiny model in several processes, with SLEBCallback; run by test_callback.py through torchrun.

torchrun --nproc-per-node 2 -m tests.callback_driver FOLDER
"""

import os
import sys
from pathlib import Path

import torch

from optimum_sleb import SLEBCallback, SLEBConfig

from .conftest import make_tokenizer
from .families import tiny_model
from .test_trainer import plain_trainer


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    trainer = plain_trainer(folder, tiny_model(), make_tokenizer(add_bos=False))
    trainer.add_callback(SLEBCallback(trainer, SLEBConfig(num_blocks_to_remove=2)))
    trainer.train()
    seen = any("sleb_blocks_after" in entry for entry in trainer.state.log_history)
    print(f"process {trainer.args.process_index} of {trainer.args.world_size}: logged {seen}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)  # as in optimum_sleb/__main__.py
