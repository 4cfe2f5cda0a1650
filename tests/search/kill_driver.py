"""Runs a search in child processes that are killed at random moments, and resumed, until it has ended.

    python tests/kill_driver.py FOLDER NUMBER_OF_KILLS [FOLDER_OF_THE_REAL_SMOLLM2]

Without the real model it is a small one of random weights. Children are forked from this process, which has imported
everything and computed nothing: so a life costs no seconds.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

import optimum_sleb.search.journal
from optimum_sleb import SLEBConfig, SLEBPruner
from optimum_sleb.models.loading import load_model
from optimum_sleb.report.folder import JOURNAL_FILE_NAME

NUM_WINDOWS = 32
RECIPE = SLEBConfig(num_blocks_to_remove=6, batch_size=2)
# Every batch of windows is written at once, so that a search of seconds has as many records as one of hours.
optimum_sleb.search.journal.SECONDS_BETWEEN_WRITES = 0.0


def small_model() -> PreTrainedModel:
    """A model of random weights, whose search takes seconds."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=14,
        num_attention_heads=4,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


def search(folder: Path, model: PreTrainedModel, length: int) -> None:
    """Prune a model, going on from the journal if there is one, and save it."""
    pruner = SLEBPruner(model)
    ids = torch.randint(3, 512, (NUM_WINDOWS, length), generator=torch.Generator().manual_seed(1))
    resume = (folder / JOURNAL_FILE_NAME).is_file()
    pruner.prune(RECIPE, calibration=ids, progress_dir=folder, resume=resume)
    pruner.save_pretrained(folder)


def start(folder: Path, model: PreTrainedModel, length: int) -> int:
    """Fork a child that searches."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            search(folder, model, length)
            code = 0
        finally:
            os._exit(code)
    return child


def main(folder: Path, kills: int, smollm2: str | None = None) -> None:
    """Search once undisturbed, then once with so many kills."""
    torch.set_num_threads(1)  # threads would not survive a fork
    model, length = small_model(), 64
    if smollm2:
        model, length = load_model(smollm2, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf", dtype=torch.float32), 32
    assert os.waitpid(start(folder / "uninterrupted", model, length), 0)[1] == 0
    killed = folder / "killed"
    moments = random.Random(0)
    for _ in range(kills):
        # Some lives end while they read the journal, most after they have added a few batches to it.
        enough = _lines(killed) + moments.randrange(4)
        child = start(killed, model, length)
        while _lines(killed) < enough and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.001)
        time.sleep(moments.uniform(0.0, 0.05))
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "the search ended before it was killed; make it longer"
    assert os.waitpid(start(killed, model, length), 0)[1] == 0
    print(json.dumps({"kills": kills}))


def _lines(folder: Path) -> int:
    journal = folder / JOURNAL_FILE_NAME
    return journal.read_bytes().count(b"\n") if journal.is_file() else 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
