"""Several processes search together: they decide as one alone, and none waits for ever for another."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from optimum_sleb import PruningReport
from optimum_sleb.errors import RankError
from optimum_sleb.runtime.ranks import Ranks

from .ranks_driver import SCENARIOS, prune, what_counts

pytestmark = pytest.mark.usefixtures("one_thread")
memory_of_one = pytest.mark.reliability(
    "memory runs out in one of two processes",
    lost="nothing: all go on in smaller batches, the report is identical",
)
DRIVER = str(Path(__file__).with_name("ranks_driver.py"))
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def launch(*command: object, seconds: float = 60) -> subprocess.CompletedProcess:
    """Run a command of several processes, which must end by itself."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHELASTIC_ERROR_FILE": ""}
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, timeout=seconds, env=environment)


@pytest.fixture(scope="module")
def met(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes met."""
    folder = tmp_path_factory.mktemp("ranks")
    done = launch(*TORCHRUN, DRIVER, folder, seconds=150)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{number}.json").read_text()) for number in range(2)]


@pytest.mark.long
@pytest.mark.parametrize("name", SCENARIOS)
def test_two_processes_decide_as_one(met: list[dict[str, Any]], name: str) -> None:
    alone = json.loads(json.dumps(what_counts(prune(name))))
    first, second = met[0][name], met[1][name]
    assert second == first
    assert first["blocks"] == alone["blocks"]
    assert first["logits"] == pytest.approx(alone["logits"], rel=1e-4)
    assert first["perplexities"] == pytest.approx(alone["perplexities"], rel=1e-5)
    for (removed, *losses), (others, *expected) in zip(first["sets"], alone["sets"], strict=True):
        assert removed == others
        assert losses == pytest.approx(expected, rel=1e-4)
    for step, expected in zip(first["steps"], alone["steps"], strict=True):
        assert step["candidate_losses"] == pytest.approx(expected["candidate_losses"], rel=1e-6)
        assert step["compensated_loss"] == (
            expected["compensated_loss"] and pytest.approx(expected["compensated_loss"])
        )
        numbers = {"candidate_losses": None, "compensated_loss": None}
        assert {**step, **numbers} == {**expected, **numbers}


@pytest.mark.long
@pytest.mark.parametrize(
    "name", [pytest.param("memory runs out in one", marks=memory_of_one), "resumed", "together again"]
)
def test_what_went_wrong_does_not_change_the_losses(met: list[dict[str, Any]], name: str) -> None:
    assert met[0][name] == met[1][name] == met[0]["batches" if name == "resumed" else "uneven"]


@pytest.mark.long
def test_memory_that_runs_out_while_one_compensates_for_all(met: list[dict[str, Any]]) -> None:
    first, second = (their["memory runs out while the first compensates"] for their in met)
    expected = met[0]["compensated"]
    assert first == second
    assert first["blocks"] == expected["blocks"]
    assert first["logits"] == pytest.approx(expected["logits"], rel=1e-4)


@pytest.mark.long
@pytest.mark.reliability(
    "one of two processes that search together fails: in its share, in the journal, in reading the text",
    lost="nothing: all end with its error, and can start again",
)
@pytest.mark.parametrize(
    ("name", "number", "error"),
    [
        ("one cannot measure", 1, "ValueError: a broken block"),
        ("the first cannot measure", 0, "ValueError: a broken block"),
        ("the journal cannot be written", 0, "OSError: the disk is full"),
        ("one cannot read its share", 1, "RuntimeError: bad text"),
    ],
)
def test_an_error_of_one_is_told_to_all(met: list[dict[str, Any]], name: str, number: int, error: str) -> None:
    assert met[number][name] == error
    assert met[1 - number][name] == f"RankError: Process {number} of 2 failed: {error}"


@pytest.mark.long
@pytest.mark.reliability("one of two processes is killed", lost="its search; the other does not wait for it")
def test_one_that_is_gone_does_not_leave_the_others_waiting(tmp_path: Path) -> None:
    started = time.monotonic()
    done = launch(*TORCHRUN, DRIVER, tmp_path, "die")
    assert done.returncode != 0
    assert time.monotonic() - started < 45


@pytest.mark.long
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_the_command(model_folder: Path, text_file: Path, tmp_path: Path, launcher: str) -> None:
    start = TORCHRUN
    if launcher == "accelerate":
        start = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
        start += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        start += ["--main_process_port", "0"]
    output = tmp_path / "out"
    model = ("--model", model_folder, "--device", "cpu", "--output", output)
    data = ("--dataset", text_file, "--window-length", 32, "--max-windows", 5)
    done = launch(*start, "-m", "optimum_sleb", "prune", *model, *data, "--num-blocks", 2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("removed, in order") == 1
    assert done.stdout.count(f"saved to {output}") == 1
    assert PruningReport.load(output).search.processes == 2


class TestRefusals:
    def test_without_a_launcher(self) -> None:
        with pytest.raises(RankError, match="start with torchrun or accelerate launch"):
            Ranks(together=True)

    def test_other_commands(self, tmp_path: Path) -> None:
        environment = {**os.environ, "WORLD_SIZE": "2"}
        command = [sys.executable, "-m", "optimum_sleb", "check", "--model", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 1
        assert done.stderr.strip().endswith("only prune is shared by several processes; start one.")

    def test_one_gpu_for_all(self) -> None:
        ranks = Ranks.alone()
        ranks.size = 2
        for device in ("cuda:0", "auto"):
            with pytest.raises(RankError, match=f"2 processes cannot share device '{device}'"):
                ranks.own_device(device)
