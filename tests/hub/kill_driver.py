"""Prunes, saves and updates cards in child processes that are killed at random moments; nothing may be lost.

python tests/hub/kill_driver.py FOLDER NUMBER_OF_KILLS
"""

import json
import os
import random
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import optimum_sleb.search.journal
from optimum_sleb import SLEBConfig, SLEBPruner
from optimum_sleb.hub.card_update import add_to_report_and_card
from optimum_sleb.hub.model_files import check_model_folder
from optimum_sleb.report.folder import JOURNAL_FILE_NAME, recover
from optimum_sleb.report.records import EvaluationRecord

optimum_sleb.search.journal.SECONDS_BETWEEN_WRITES = 0.0
RECIPE = SLEBConfig(num_blocks_to_remove=2, batch_size=1)
IDS = torch.randint(3, 64, (8, 16), generator=torch.Generator().manual_seed(1))


def pruner() -> SLEBPruner:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 8, "num_attention_heads": 4}
    return SLEBPruner(LlamaForCausalLM(LlamaConfig(vocab_size=64, initializer_range=0.2, **sizes)).eval())


def prune(out: Path, number: int) -> None:
    one, resume = pruner(), (out / JOURNAL_FILE_NAME).is_file()
    one.prune(RECIPE, calibration=IDS, progress_dir=out, resume=resume)
    one.save_pretrained(out, overwrite=True)


def save(out: Path, number: int) -> None:
    one = pruner()
    one.remove([1 + number % 6])
    one.save_pretrained(out, overwrite=True)


def update(out: Path, number: int) -> None:
    add_to_report_and_card(out, [EvaluationRecord("perplexity", "text", f"protocol {number}", after=float(number))])


def start(act: Callable[[Path, int], None], out: Path, number: int) -> int:
    child = os.fork()
    if child == 0:
        try:
            warnings.simplefilter("ignore")
            act(out, number)
            os._exit(0)
        finally:
            os._exit(1)
    return child


def state(out: Path) -> tuple[str, set[str], int]:
    """Which save it is of, measurements and lines of the journal; raises if the folder is not whole."""
    recover(out)
    report, journal = check_model_folder(out), out / JOURNAL_FILE_NAME
    card = (out / "README.md").read_text()
    assert all(record.protocol in card for record in report.evaluations), "the card lacks a measurement"
    assert (out / "training.log").read_text() == "mine", "a file of the user"
    left = {path.name for path in out.parent.iterdir()} - {out.name, f".{out.name}.lock"}
    assert not left, left
    lines = journal.read_bytes().count(b"\n") if journal.is_file() else 0
    return (
        f"{report.weights_sha256} {report.created} {report.seconds}",
        {record.protocol for record in report.evaluations},
        lines,
    )


def main(folder: Path, kills: int) -> None:
    torch.set_num_threads(1)  # threads would not survive a fork
    warnings.simplefilter("ignore")
    out, moments = folder / "out", random.Random(0)
    durations: dict[str, float] = {}
    killed: Counter[str] = Counter()
    save(out, 0)
    (out / "training.log").write_text("mine")
    number = 0
    while killed.total() < kills:
        number += 1
        saved, measured, lines = state(out)
        act = moments.choice([prune] if lines else [prune, save, update, update])
        began = time.perf_counter()
        child = start(act, out, number)
        time.sleep(moments.uniform(0.0, 1.1 * durations.get(act.__name__, 1.0)))
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status) or status == 0, f"{act.__name__} failed"
        if status == 0:
            durations[act.__name__] = min(durations.get(act.__name__, 9.0), time.perf_counter() - began)
        killed[act.__name__] += os.WIFSIGNALED(status)
        now, measured_now, lines_now = state(out)
        if now == saved:
            assert measured <= measured_now, "a measurement"
            assert lines_now >= lines, "lines of the journal"
        else:
            assert act is not update, "another model"
        if status == 0 and act is update:
            assert f"protocol {number}" in measured_now
    print(json.dumps({"kills": killed.total(), **killed}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
