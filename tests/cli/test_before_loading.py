"""A slip costs seconds: it is refused before a folder of 100 GB is read, and most of them before torch is imported."""

import json
import os
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optimum_sleb import PruningReport, SLEBError, SLEBPruner

from ..attacks.harness import Outcome, assert_refused, run_command
from ..conftest import make_text, make_tokenizer
from ..families import tiny_model
from ..hub.local_hub import Fault, LocalHub, Repository
from ..models.test_gguf_header import BLOCKS, NAME, gguf

MOST_SECONDS = 3.0
WEIGHTS = 100 * 10**9


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense model of 100 GB, a pruned one, and reports."""
    place = tmp_path_factory.mktemp("large")
    for name, seed in (("dense", 0), ("other", 1)):
        tiny_model(seed=seed, **({"intermediate_size": 64} if name == "other" else {})).save_pretrained(place / name)
        make_tokenizer(False).save_pretrained(place / name)
        pruner = SLEBPruner.from_pretrained(place / name)
        pruner.remove([2, 3])
        pruner.save_pretrained(place / f"{name}-pruned")
    shutil.copytree(place / "dense-pruned", place / "mixed")
    report = PruningReport.load(place / "dense-pruned")
    (place / "mixed" / "sleb_report.json").write_text(json.dumps(replace(report, steps=report.steps[:1]).to_dict()))
    (place / "model.gguf").write_bytes(gguf(NAME, BLOCKS))
    (place / "text.txt").write_text(make_text(400))
    # Last, and never copied: a copy of a sparse file fills the disk.
    os.truncate(place / "model.gguf", WEIGHTS)
    for name in ("dense", "dense-pruned"):
        grow(place / name / "model.safetensors")
    return place


def grow(weights: Path) -> None:
    """Make a sparse file of 100 GB of weights: its header names one tensor that is never read."""
    header = {"model.norm.weight": {"dtype": "U8", "shape": [WEIGHTS], "data_offsets": [0, WEIGHTS]}}
    text = json.dumps(header).encode()
    weights.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(weights, 8 + len(text) + WEIGHTS)


@pytest.fixture
def at(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


PRUNE = "prune --model dense --output out --dataset text.txt"
REMOVE = "remove --output out"

# By the command, what the sentence holds. These need neither torch nor the network.
AT_ONCE: dict[str, tuple[str, str]] = {
    "the data": ("prune --model dense --output out --num-blocks 1 --dataset misspelt.jsonl", "misspelt.jsonl"),
    "one of two data": ("prune --model dense --output out --num-blocks 1 --dataset text.txt+c5", "c5"),
    "no number": (PRUNE + " --num-blocks 0", "num_blocks_to_remove"),
    "a share": (PRUNE + " --sparsity 20", "sparsity"),
    "two amounts": (PRUNE + " --sparsity 0.2 --num-blocks 2", "not allowed with"),
    "a choice": (PRUNE + " --sparsity 0.2 --search exakt", "choose from"),
    "the output": (PRUNE.replace(" out ", " dense-pruned ") + " --num-blocks 1", "already holds a model"),
    "no journal": (PRUNE + " --num-blocks 1 --resume", "no journal in out"),
    "private": (PRUNE + " --num-blocks 1 --private", "--private belongs to --push-to-hub"),
    "a race": (PRUNE + " --num-blocks 1 --racing-confidence 2", "belongs to --search racing"),
    "offloaded": (PRUNE + " --num-blocks 1 --search reference --offload cpu", "--search exact"),
    "few windows": (PRUNE + " --num-blocks 1 --compensate during --max-windows 2", "at least 3"),
    "few windows for every block": (PRUNE + " --num-blocks 1 --preset best --max-windows 2", "at least 3"),
    "sets on the way": (PRUNE + " --num-blocks 1 --preset best --compensate during", "search_space, beam_width"),
    "a perplexity of KL": (PRUNE + " --max-perplexity-increase 0.1 --preset best", "max_perplexity_increase"),
    "fewer windows than texts": (PRUNE + "+text.txt --num-blocks 1 --max-windows 1", "max_windows=1"),
    "a revision": (PRUNE + " --num-blocks 1 --revision v2", "--revision belongs to a model of the Hub"),
    "a GGUF file": (PRUNE + " --num-blocks 1 --gguf-file model.guff", "'model.guff'"),
    "a repository": (PRUNE + " --num-blocks 1 --push-to-hub me/a/b", "cannot be the name of a repository"),
    "offline": (PRUNE + " --num-blocks 1 --push-to-hub me/a", "unset HF_HUB_OFFLINE"),
    "a licence": (PRUNE + " --num-blocks 1 --license Apache-2.0", "is no identifier of the Hub"),
    "a base model that is a path": (PRUNE + " --num-blocks 1 --base-model ./dense", "is no name on the Hub"),
    "a language, removing": (REMOVE + " --model dense --blocks 1 --language en English!", "codes of ISO 639"),
    "no report": (REMOVE + " --report misspelt", "There is no report at 'misspelt'"),
    "private, removing": (REMOVE + " --report dense-pruned --private", "--private belongs to --push-to-hub"),
    "a list and a number": (REMOVE + " --model dense --blocks 1 --num-blocks 1", "--num-blocks belongs to --report"),
    "blocks of nothing": (REMOVE + " --blocks 1", "--model"),
    "a block twice": (REMOVE + " --model dense --blocks 1 2 1", "block 1 twice"),
    "no draft": ("benchmark --model dense --assisted", "--baseline"),
    "prompts only": (
        "benchmark --model dense --scenarios prompt --batch-sizes 4",
        "belongs to --scenarios generation",
    ),
    "generation only": ("benchmark --model dense --scenarios generation --prompt 4", "belongs to --scenarios prompt"),
    "a revision of two": ("evaluate --model dense --baseline other --revision v2", "belongs to a model of the Hub"),
}

# These look at the model's config, for which torch is imported; the seconds are those that follow.
WITH_THE_CONFIG: dict[str, tuple[str, str]] = {
    "more blocks than there are": (PRUNE + " --num-blocks 9", "leaves none of the 6 blocks"),
    "barriers": (PRUNE + " --num-blocks 2 --early-barrier 4", "early_barrier=4"),
    "blocks of a pruned one": (PRUNE.replace("dense", "dense-pruned") + " --num-blocks 4", "of 4 blocks"),
    "a report that is not beside its model": (
        PRUNE.replace("dense", "mixed") + " --num-blocks 1",
        "The report beside",
    ),
    "a device": (PRUNE + " --num-blocks 1 --device cdua", "cdua"),
    "a precision": (PRUNE + " --num-blocks 1 --dtype bfloat61", "bfloat61"),
    "blocks of a GGUF file": (
        PRUNE.replace("dense", ".") + " --num-blocks 30 --gguf-file model.gguf",
        "30 of 30 blocks",
    ),
    "a block": (REMOVE + " --model dense --blocks 6", "Block 6 cannot be removed"),
    "a block that is gone": (REMOVE + " --model dense-pruned --blocks 3", "Block 3 cannot be removed (again)"),
    "all blocks": (REMOVE + " --model dense --blocks 0 1 2 3 4 5", "Between 1 and 5 blocks"),
    "a block of a GGUF file": (REMOVE + " --model . --gguf-file model.gguf --blocks 30", "Block 30 cannot be removed"),
    "a report of another size": (
        REMOVE + " --model dense --report other-pruned",
        "The report is of a LlamaForCausalLM",
    ),
    "a report of the dense one": (REMOVE + " --model dense-pruned --report dense-pruned", "with 6 blocks and"),
    "a depth": (REMOVE + " --model dense --report dense-pruned --num-blocks 3", "must remove between 1 and 2 blocks"),
}


@pytest.fixture
def nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded before the slip was refused")

    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", fail)
    monkeypatch.setattr("optimum_sleb.models.loading.check_weight_files", fail)


def assert_quick(outcome: Outcome, sentence: str) -> None:
    assert_refused(outcome, sentence)
    assert outcome.seconds < MOST_SECONDS
    assert outcome.peak < 500e6


@pytest.mark.usefixtures("nothing_is_read")
@pytest.mark.parametrize("what", [*AT_ONCE, *WITH_THE_CONFIG])
def test_before_the_weights(what: str, at: Path) -> None:
    command, sentence = (AT_ONCE | WITH_THE_CONFIG)[what]
    before = sorted(os.listdir(at))
    device = [] if "--device" in command else ["--device", "cpu"]
    assert_quick(run_command([*command.split(), *device]), sentence)
    assert sorted(os.listdir(at)) == before


@pytest.mark.long
@pytest.mark.parametrize("what", AT_ONCE)
def test_before_torch(what: str, at: Path) -> None:
    """The whole process, from its start: seconds of work, because others may work on this machine."""
    command, sentence = AT_ONCE[what]
    code = (
        "import sys; from optimum.commands.optimum_cli import main\n"
        "try: main()\nfinally: print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code, "sleb", *command.split()], capture_output=True, text=True, env=dict(os.environ)
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr.splitlines()[-1]
    assert done.stdout == "[]\n"
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < MOST_SECONDS


ON_THE_HUB: dict[str, tuple[Callable[[LocalHub], Any], str]] = {
    "no login": (lambda hub: hub.faults.append(Fault("/whoami", 401)), "log in with `hf auth login`"),
    "someone else's": (lambda hub: hub.user.update(name="you"), "you cannot push to me/a"),
    "a public one": (
        lambda hub: hub.repositories.update({"me/a": Repository(False)}),
        "is public, against private=True",
    ),
}


@pytest.mark.usefixtures("nothing_is_read")
@pytest.mark.parametrize("command", [PRUNE + " --num-blocks 1", REMOVE + " --model dense --blocks 1"])
@pytest.mark.parametrize("what", ON_THE_HUB)
def test_the_repository(what: str, command: str, hub: LocalHub, at: Path) -> None:
    arrange, sentence = ON_THE_HUB[what]
    arrange(hub)
    assert_quick(run_command([*command.split(), "--push-to-hub", "me/a", "--private", "--device", "cpu"]), sentence)


# What goes together, though it may look as if it did not, or has no effect and does no harm.
HARMLESS = (
    "--seed 3",
    "--num-samples 4",
    "--batch-size 2",
    "--racing-confidence 3.5",
    "--overwrite",
    "--published-bos",
)


@pytest.mark.parametrize("options", HARMLESS)
def test_what_does_no_harm(options: str, at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reached(*_: object, **__: object) -> None:
        raise SLEBError("the weights were reached; leave it")

    monkeypatch.setattr("optimum_sleb.pruner.SLEBPruner.from_pretrained", reached)
    outcome = run_command([*PRUNE.split(), "--num-blocks", 1, *options.split(), "--device", "cpu"])
    assert_refused(outcome, "the weights were reached")
