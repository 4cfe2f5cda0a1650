"""`optimum-cli sleb heal`, as a person runs it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from optimum_sleb import PruningReport, SLEBPruner

from ..attacks.harness import Outcome, run_command
from ..conftest import make_tokenizer
from ..families import tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def pruned(tmp_path: Path) -> Path:
    pruner = SLEBPruner(tiny_model(), make_tokenizer(add_bos=False))
    pruner.remove([2, 3])
    return pruner.save_pretrained(tmp_path / "pruned")


@pytest.fixture
def command(pruned: Path, text_file: Path, tmp_path: Path) -> list[str]:
    where = ["--model", pruned, "--dataset", text_file, "--output", tmp_path / "healed", "--device", "cpu"]
    return ["heal", *map(str, where), "--batch-size", "4", "--window-length", "20"]


@pytest.fixture
def heal(command: list[str]) -> Callable[..., Outcome]:
    return lambda *options: run_command([*command, *map(str, options)])


@pytest.mark.long
def test_each_method(heal, model_folder: Path, tmp_path: Path) -> None:
    done = heal("--steps", 2)
    assert done.code == 0, done.err
    report = PruningReport.load(tmp_path / "healed")
    assert done.out == f"{report.summary()}\nsaved to {tmp_path / 'healed'}\n"
    assert [healing.method for healing in report.healing] == ["LoRA of rank 64, merged"]
    assert "'loss'" in done.err  # what the Trainer logs
    run_dir = tmp_path / "healed-run"
    assert (run_dir / "adapter_config.json").is_file()
    assert not list(run_dir.glob("checkpoint-*"))

    done = heal("--steps", 2, "--method", "full", "--overwrite", "--json", "--quiet")
    assert done.code == 0, done.err
    assert done.err == ""
    assert json.loads(done.out)["report"]["healing"][0]["method"] == "full fine-tuning"

    teacher = ["--method", "distill", "--teacher", model_folder, "--cache-teacher", tmp_path / "teacher"]
    done = heal("--tokens", 160, *teacher, "--self-data", 9, "--overwrite")
    assert done.code == 0, done.err
    (healing,) = PruningReport.load(tmp_path / "healed").healing
    assert (healing.method, healing.steps) == ("distillation from dense", 2)
    assert healing.dataset.startswith("9 answers of dense to ")
    assert "9 answers of dense to text.txt" in (tmp_path / "healed" / "README.md").read_text()


@pytest.mark.long
def test_stopped_and_resumed(command: list[str], heal, tmp_path: Path) -> None:
    program = [str(Path(sys.executable).with_name("optimum-cli")), "sleb", *command, "--method", "full"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    settings = ["--steps", "2000", "--save-steps", "5"]
    process = subprocess.Popen([*program, *settings], stderr=subprocess.PIPE, text=True, env=environment)
    while not list((tmp_path / "healed-run").glob("checkpoint-*/healing_checkpoint.json")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert "repeat the command with --resume to go on." in said.splitlines()[-1]

    done = heal("--method", "full", "--steps", 2000, "--save-steps", 5)
    assert done.code == 2
    assert "holds a healing that was begun; go on with it (resume=True, --resume)" in done.err
    done = heal("--method", "full", "--steps", 3, "--save-steps", 5, "--resume")
    assert done.code == 2
    assert "holds a healing with steps=2000, but now it is 3" in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "distill"], "--method distill learns from the dense model; name it (--teacher)"),
        (["--self-data", "4"], "--self-data learns from the dense model; name it (--teacher)"),
        (["--steps", "3", "--tokens", "4"], "not allowed with argument"),
        (["--minutes", "0"], "minutes must be a number above 0; got 0.0"),
        (["--dataset", "nowhere.txt"], "nowhere.txt"),
        (["--teacher", "dense"], "teacher belongs to method='distill'"),
        (["--learning-rate", "nan"], "learning_rate must be a number above 0"),
        (["--rank", "4", "--method", "full"], "method='full' has none"),
        (["--report-to", "nothing"], "nothing"),
    ],
)
def test_refusals(options: list[str], message: str, heal, tmp_path: Path) -> None:
    done = heal(*options)
    assert done.code == 2, done.err
    assert message in done.err
    assert not (tmp_path / "healed").exists()


def test_a_model_that_was_not_pruned(heal, model_folder: Path) -> None:
    done = heal("--model", model_folder)
    assert done.code == 2
    assert "There is no report beside" in done.err


def test_nothing_to_heal_on(pruned: Path, tmp_path: Path) -> None:
    done = run_command(["heal", "--model", str(pruned), "--output", str(tmp_path / "healed")])
    assert done.code == 2
    assert "Name what to heal on (--dataset), or let the dense model write it (--self-data)" in done.err
    assert AutoModelForCausalLM.from_pretrained(pruned).config.num_hidden_layers == 4
