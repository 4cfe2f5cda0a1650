"""The commands as a person runs them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from optimum.commands import optimum_cli
from transformers import AutoModelForCausalLM

from optimum_sleb import PruningReport, SLEBConfig, SLEBPruner
from optimum_sleb.cli.common import exit_on_signals
from optimum_sleb.report.folder import JOURNAL_FILE_NAME
from optimum_sleb.report.records import StepRecord

from ..architectures.tiny import tiny_model as tiny
from ..calibration.chatting import chat, chat_tokenizer
from ..conftest import make_text
from ..families import tiny_model
from ..hub.local_hub import Fault, LocalHub
from ..report.sets import depths_of

COMMAND = [str(Path(sys.executable).with_name("optimum-cli"))]


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, env={**os.environ, **environment}
    )


@pytest.fixture
def sleb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., subprocess.CompletedProcess]:
    """Runs a command in this process, which spares the seconds that importing torch takes."""

    def run_here(*arguments: object, device: bool = True) -> subprocess.CompletedProcess:
        argv = ["optimum-cli", "sleb", *map(str, arguments), *(["--device", "cpu"] if device else [])]
        monkeypatch.setattr(sys, "argv", argv)
        code = 0
        try:
            optimum_cli.main()
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        return subprocess.CompletedProcess(argv, code, captured.out, captured.err)

    return run_here


@pytest.mark.long
def test_labels_and_columns(sleb, tmp_path: Path) -> None:
    model, tokenizer = tiny_model(), chat_tokenizer()
    model.save_pretrained(tmp_path / "dense")
    tokenizer.save_pretrained(tmp_path / "dense")
    chats, text = tmp_path / "chats.jsonl", tmp_path / "text.jsonl"
    rows = [{"messages": chat(seed)} for seed in range(6)]
    chats.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text.write_text(json.dumps({"text": make_text(50)}) + "\n")
    options = ["--num-blocks", 1, "--loss", "labels", "--window-length", 30]

    done = sleb("prune", "--model", tmp_path / "dense", "--dataset", chats, *options, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "calibrated on messages, by the tokenizer's chat template, assistant turns\n" in done.stdout
    report = PruningReport.load(tmp_path / "out")
    in_memory = SLEBPruner(tiny_model(), tokenizer)
    in_memory.prune(SLEBConfig(num_blocks_to_remove=1, loss="labels", window_length=30), calibration=rows)
    assert report.calibration.fingerprint == in_memory.report.calibration.fingerprint
    assert report.removed_blocks == in_memory.report.removed_blocks
    card = (tmp_path / "out" / "README.md").read_text()
    assert "chats.jsonl (messages, by the tokenizer's chat template, assistant turns; 6 windows" in card
    assert "--loss labels" in card

    done = sleb("prune", "--model", tmp_path / "dense", "--dataset", text, *options, "--output", tmp_path / "none")
    assert done.returncode == 2
    assert 'text.jsonl carries no labels, on which loss="labels" is measured' in done.stderr

    options = ["--num-blocks", 1, "--document-separator", "eos", "--window-length", 20]
    done = sleb("prune", "--model", tmp_path / "dense", "--dataset", text, *options, "--output", tmp_path / "eos")
    assert done.returncode == 0, done.stderr
    assert "--document-separator eos" in (tmp_path / "eos" / "README.md").read_text()
    assert SLEBConfig.from_pretrained(tmp_path / "eos").document_separator == "eos"


@pytest.mark.long
def test_prune_evaluate_remove(sleb, model_folder: Path, text_file: Path, tmp_path: Path) -> None:
    pruned, shallower, listed = tmp_path / "pruned", tmp_path / "shallower", tmp_path / "listed"
    data = ["--dataset", text_file, "--window-length", 20]

    done = sleb("prune", "--model", model_folder, "--num-blocks", 2, *data, "--output", pruned)
    assert done.returncode == 0, done.stderr
    report = PruningReport.load(pruned)
    assert done.stdout == f"{report.summary()}\nsaved to {pruned}\n"
    assert AutoModelForCausalLM.from_pretrained(pruned).config.num_hidden_layers == 4

    done = sleb(
        *("evaluate", "--model", pruned, "--baseline", model_folder, "--tasks", text_file, "--window-length", 20)
    )
    assert done.returncode == 0, done.stderr
    # On the calibration text the perplexities are those of the search.
    row = done.stdout.splitlines()[1].split()
    assert row[:2] == [str(text_file), "perplexity"]
    assert [row[2], row[5]] == [f"{report.perplexity_before:.2f}", f"{report.perplexity_after:.2f}"]

    done = sleb("remove", "--report", pruned / "sleb_report.json", "--num-blocks", 1, "--output", shallower, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["report"] == json.loads((shallower / "sleb_report.json").read_text())
    assert PruningReport.load(shallower).removed_blocks == report.removed_blocks[:1]

    done = sleb("remove", "--model", model_folder, "--blocks", *report.removed_blocks, "--output", listed)
    assert done.returncode == 0, done.stderr
    assert PruningReport.load(listed).blocks_after == report.blocks_after
    assert (listed / "model.safetensors").read_bytes() == (pruned / "model.safetensors").read_bytes()


@pytest.mark.long
def test_remove_takes_the_set_of_a_depth(sleb, model_folder: Path, text_file: Path, tmp_path: Path) -> None:
    pruner = SLEBPruner.from_pretrained(model_folder)
    pruner.prune(num_blocks_to_remove=3, dataset=str(text_file), window_length=20)
    best = ((4,), (1, 3), (2, 3, 4))
    depths = depths_of(best, pruner.report.blocks_before)
    replace(pruner.report, depths=depths, steps=tuple(map(StepRecord, best[-1]))).save(tmp_path)
    for number, blocks in enumerate(best, start=1):
        output = tmp_path / f"without-{number}"
        done = sleb("remove", "--report", tmp_path, "--num-blocks", number, "--output", output)
        assert done.returncode == 0, done.stderr
        report = PruningReport.load(output)
        assert (report.removed_blocks, report.depths) == (blocks, depths[:number])
        assert done.stdout == f"{report.summary()}\nsaved to {output}\n"
        listed = tmp_path / f"listed-{number}"
        assert sleb("remove", "--model", model_folder, "--blocks", *blocks, "--output", listed).returncode == 0
        assert (listed / "model.safetensors").read_bytes() == (output / "model.safetensors").read_bytes()


@pytest.mark.long
def test_prune_and_push(sleb, hub: LocalHub, model_folder: Path, text_file: Path, tmp_path: Path) -> None:
    pruned = tmp_path / "pruned"
    data = ["--dataset", text_file, "--window-length", 20]
    hub.faults.append(Fault("/commit/", 403))
    done = sleb(
        "prune", "--model", model_folder, "--num-blocks", 2, *data, "--output", pruned, "--push-to-hub", "me/a"
    )
    assert done.returncode == 2
    assert done.stdout.endswith(f"saved to {pruned}\n")
    assert "prune: error: me/a was not pushed: the Hub answered 403" in done.stderr.splitlines()[-1]

    hub.faults.clear()  # what was searched for is not lost
    done = sleb("push", "--folder", pruned, "--repo", "me/a", "--private", device=False)
    assert done.returncode == 2
    assert "me/a exists and is public, against private=True" in done.stderr
    done = sleb("push", "--folder", pruned, "--repo", "me/a", "--json", device=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["commit"].startswith(f"{hub.url}/me/a/commit/")
    done = sleb(
        "push", "--folder", pruned, "--repo", "me/a", "--revision", "v2", "--commit-message", "x", device=False
    )
    assert done.returncode == 0, done.stderr
    assert hub.repositories["me/a"].branches["v2"][-1].message == "x"
    described = ["--commit-description", "long story", "--tags", "mine", "yours"]
    done = sleb("push", "--folder", pruned, "--repo", "me/a", "--revision", "v3", *described, device=False)
    assert done.returncode == 0, done.stderr
    commit = hub.repositories["me/a"].branches["v3"][-1]
    assert commit.description == "long story"
    assert b"- mine\n- yours" in commit.files["README.md"]
    done = sleb("push", "--folder", pruned, "--repo", "me/a", "--create-pr", device=False)
    assert done.stdout == f"pushed to {hub.url}/me/a/discussions/1\n"

    listed = ["remove", "--model", model_folder, "--blocks", 1, "--output", tmp_path / "b", "--private"]
    done = sleb(*listed, "--push-to-hub", "me/b", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["commit"].startswith(f"{hub.url}/me/b/commit/")
    assert hub.repositories["me/b"].private


@pytest.mark.long
def test_prune_block_by_block(sleb, model_folder: Path, text_file: Path, tmp_path: Path) -> None:
    common = ("prune", "--model", model_folder, "--dataset", text_file, "--window-length", 32, "--num-blocks", 2)
    done = sleb(*common, "--output", tmp_path / "out", "--offload", "cpu")
    assert done.returncode == 0, done.stderr
    assert "blocks came to cpu one at a time: asked for (offload='cpu')" in done.stdout
    assert sleb(*common, "--output", tmp_path / "whole").returncode == 0
    offloaded, whole = (PruningReport.load(tmp_path / name) for name in ("out", "whole"))
    assert offloaded.removed_blocks == whole.removed_blocks


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(sleb, model_folder: Path, tmp_path: Path) -> None:
    common = ("prune", "--model", model_folder, "--num-blocks", 2, "--output", tmp_path / "out")
    done = sleb(*common, "--device", "cuda", device=False)
    assert done.returncode == 2
    assert "device='cuda' was asked for, but PyTorch finds no GPU here" in done.stderr


def test_push_of_something_else(sleb, model_folder: Path) -> None:
    done = sleb("push", "--folder", model_folder, "--repo", "me/a", device=False)
    assert done.returncode == 2
    assert "holds no sleb_report.json, so it is not a complete folder of optimum_sleb" in done.stderr


@pytest.mark.long
def test_evaluate_records_what_it_measured(sleb, model_folder: Path, text_file: Path, tmp_path: Path) -> None:
    pruned = tmp_path / "pruned"
    sleb("remove", "--model", model_folder, "--blocks", 2, "--output", pruned)
    tasks = ["--tasks", text_file, "--window-length", 20, "--update-card"]
    done = sleb("evaluate", "--model", pruned, "--baseline", model_folder, *tasks, "--json")
    assert done.returncode == 0, done.stderr
    measured = {name: row[0]["value"] for name, row in json.loads(done.stdout).items()}
    (record,) = PruningReport.load(pruned).evaluations
    assert (record.before, record.after) == (measured[str(model_folder)], measured[str(pruned)])
    cells = [f"{record.before:.2f} ± {record.before_stderr:.2f}", f"{record.after:.2f} ± {record.after_stderr:.2f}"]
    assert f"| {' | '.join(cells)} | 20 windows of 20 tokens |" in (pruned / "README.md").read_text()
    done = sleb("evaluate", "--model", model_folder, *tasks)
    assert done.returncode == 2
    assert "holds no sleb_report.json" in done.stderr


@pytest.mark.long
@pytest.mark.usefixtures("one_thread")
def test_curve_of_a_search(sleb, model_folder: Path, text_file: Path, tmp_path: Path) -> None:
    pruned, picture = tmp_path / "pruned", tmp_path / "curve.png"
    data = ["--dataset", text_file, "--window-length", 20]
    sleb("prune", "--model", model_folder, "--num-blocks", 2, *data, "--output", pruned)
    command = ["evaluate", "--report", pruned / "sleb_report.json", "--curve", "--tasks", text_file]
    done = sleb(*command, "--window-length", 20, "--output", picture)
    assert done.returncode == 0, done.stderr
    report = PruningReport.load(pruned)
    rows = done.stdout.splitlines()[1:4]
    assert [row.split()[:2] for row in rows[::2]] == [
        ["0", f"{report.perplexity_before:.2f}"],
        ["2", f"{report.perplexity_after:.2f}"],
    ]
    assert done.stdout.endswith(f"drawn to {picture}\n")
    assert picture.read_bytes().startswith(b"\x89PNG")
    told = json.loads(sleb(*command, "--window-length", 20, "--output", picture, "--json").stdout)
    assert [one["num_removed"] for one in told] == [0, 1, 2]
    for arguments, message in [
        (["--report", pruned], "--report belongs to --curve"),
        (["--curve"], "--curve draws the depths of a search; name its report (--report)"),
        ([], "Name the model to evaluate (--model)"),
        (
            ["--report", pruned, "--curve", "--tasks", "c4", "wikitext2"],
            "The curve is one of perplexity; name one text",
        ),
    ]:
        done = sleb("evaluate", *arguments)
        assert done.returncode == 2
        assert message in done.stderr


@pytest.mark.long
@pytest.mark.usefixtures("one_thread")
def test_benchmark(sleb, model_folder: Path, tmp_path: Path) -> None:
    pruned = tmp_path / "pruned"
    sleb("remove", "--model", model_folder, "--blocks", 2, "--output", pruned)
    sizes = ["--prompt", 16, "--batch-sizes", 1, 2, "--short-prompt", 4, "--new-tokens", 2, "--repeats", 1]
    command = ["benchmark", "--model", pruned, "--baseline", model_folder, *sizes, "--progress", tmp_path / "progress"]
    done = sleb(*command, "--update-card")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 + 3 + 1 + 1 + 3
    assert re.search(r"^weights on disk, MB: 0\.\d, 0\.\d$", done.stdout, flags=re.MULTILINE)
    assert "x of 1.20x (6/5 blocks)" in done.stdout
    speeds = PruningReport.load(pruned).speeds
    assert [speed.protocol.split(", ")[0] for speed in speeds] == ["1 x 16 tokens", "1 x 4 tokens", "2 x 4 tokens"]
    assert "| prompt latency, ms |" in (pruned / "README.md").read_text()
    told = json.loads(sleb(*command, "--json", "--assisted").stdout)
    assert 0 <= told["assisted"]["acceptance"] <= 1
    assert [one["record"]["after"] for one in told["speeds"]] == [speed.after for speed in speeds], "it goes on"
    done = sleb("benchmark", "--model", model_folder, "--scenarios", "prompt", "--prompt", 8, "--repeats", 1)
    assert done.stdout.startswith("scenario ")
    done = sleb("benchmark", "--model", model_folder, "--assisted")
    assert "--assisted needs the dense model" in done.stderr
    done = sleb("benchmark", "--model", model_folder, "--update-card")
    assert done.returncode == 2
    assert "holds no sleb_report.json" in done.stderr


def test_a_model_without_a_tokenizer_is_not_measured_on_text(sleb, tmp_path: Path, llama, text_file: Path) -> None:
    llama.save_pretrained(tmp_path / "bare")
    for command in (
        ["evaluate", "--model", tmp_path / "bare", "--tasks", text_file],
        ["benchmark", "--model", tmp_path / "bare", "--baseline", tmp_path / "bare", "--assisted"],
    ):
        with pytest.warns(UserWarning, match="No tokenizer could be loaded"):
            done = sleb(*command)
        assert done.returncode == 2
        assert "There is no tokenizer beside the model" in done.stderr


def test_json_is_all_that_a_machine_reads(sleb, model_folder: Path, text_file: Path) -> None:
    done = sleb("evaluate", "--model", model_folder, "--tasks", text_file, "--window-length", 20, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[str(model_folder)][0]["num_examples"] == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sparsity", 2], "sparsity must lie strictly between 0 and 1, got 2.0."),
        (["--num-blocks", 5], "fewer than the 2 that early_barrier=1 and latter_barrier=1 protect"),
        (["--num-blocks", 1, "--dataset", "nowhere.txt"], "'nowhere.txt' is neither a known data set"),
        (["--num-blocks", 1, "--window-length", 1000], "The text has 400 tokens, but one window takes 1000 tokens"),
        (["--num-blocks", 1], "The data set 'wikitext2' cannot be loaded from the Hub"),
    ],
)
def test_bad_arguments_end_with_one_line_and_code_2(
    sleb, arguments: list, message: str, model_folder: Path, text_file: Path, tmp_path: Path
) -> None:
    if "--window-length" in arguments:
        arguments = [*arguments, "--dataset", text_file]
    done = sleb("prune", "--model", model_folder, *arguments, "--output", tmp_path / "out")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("optimum-cli sleb prune: error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prune", "--model", "m", "--output", "o"], "one of the arguments --sparsity --num-blocks"),
        (["prune", "--model", "m", "--output", "o", "--sparsity", ".2", "--num-blocks", "1"], "not allowed with"),
        (["remove", "--blocks", "1", "--output", "o"], "Name the model that the blocks are taken from"),
        (["remove", "--model", "m", "--blocks", "1", "--num-blocks", "1", "--output", "o"], "belongs to --report"),
        (["remove", "--report", "nowhere", "--output", "o"], "There is no report at 'nowhere'"),
        (["evaluate", "--model", "nobody/nothing"], "There is no model at 'nobody/nothing'"),
    ],
)
def test_other_bad_arguments(sleb, arguments: list[str], message: str) -> None:
    done = sleb(*arguments)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]


def test_a_folder_that_holds_a_model_is_refused_before_the_search(sleb, model_folder: Path) -> None:
    done = sleb("prune", "--model", "nobody/nothing", "--num-blocks", 1, "--output", model_folder)
    assert done.returncode == 2
    assert "already holds a model (model.safetensors)" in done.stderr


class TestPlugin:
    """How `optimum-cli` finds and bears the commands, in processes of their own."""

    @pytest.mark.long
    def test_a_command_runs(self, model_folder: Path, tmp_path: Path) -> None:
        output = tmp_path / "out"
        done = run("sleb", "remove", "--model", model_folder, "--blocks", 2, "--output", output, "--device", "cpu")
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(f"saved to {output}\n")
        # transformers imports torchao where it is installed, and torchao says what its own build lacks here.
        said = [line for line in done.stderr.splitlines() if "torchao" not in line and "_pytree.py" not in line]
        assert said == [], "progress bars belong to terminals"

    @pytest.mark.long
    def test_help_is_fast_and_lists_the_commands(self) -> None:
        run("--help")  # warm the byte code
        started = time.perf_counter()
        done = run("--help")
        seconds = time.perf_counter() - started
        assert "sleb" in done.stdout
        assert seconds < 1.5, "something heavy is imported when commands are registered"
        assert {"prune", "remove", "evaluate", "push"} <= set(run("sleb", "--help").stdout.split())

    def test_no_heavy_import_when_registering(self) -> None:
        heavy = ("torch", "transformers", "datasets")
        code = f"import sys, optimum_sleb.cli; print([name for name in {heavy} if name in sys.modules])"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"

    def test_other_commands_survive_when_ours_fail_to_import(self, tmp_path: Path) -> None:
        broken = tmp_path / "optimum_sleb"
        broken.mkdir()
        (broken / "__init__.py").write_text("raise ImportError('broken on purpose')")
        done = run("--help", PYTHONPATH=str(tmp_path))
        assert done.returncode == 0
        assert "export" in done.stdout
        assert "optimum-sleb could not register its commands: ImportError('broken on purpose')" in done.stderr


@pytest.mark.long
def test_check(sleb, model_folder: Path) -> None:
    done = sleb("check", "--model", model_folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("LlamaForCausalLM: 6 of 6 blocks can be removed\n")
    assert "num_hidden_layers: 6 -> 5" in done.stdout
    done = sleb("check", "--model", model_folder, "--json")
    assert json.loads(done.stdout)["removable"] == [0, 1, 2, 3, 4, 5]


def test_check_of_a_model_that_cannot_be_pruned(sleb, tmp_path: Path) -> None:
    tiny("rwkv").save_pretrained(tmp_path / "rwkv")
    done = sleb("check", "--model", tmp_path / "rwkv")
    assert done.returncode == 1
    assert done.stdout.startswith("refused: RwkvForCausalLM rescales the weights of its blocks")
    done = sleb("check", "--model", tmp_path / "rwkv", "--json")
    assert done.returncode == 1
    assert "rescale_every=0" in json.loads(done.stdout)["refused"]


def test_check_of_nothing(sleb, tmp_path: Path) -> None:
    done = sleb("check", "--model", tmp_path / "nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("optimum-cli sleb check: error: There is no model")


@pytest.mark.long
@pytest.mark.reliability("SIGINT and SIGTERM of the command", lost="nothing; exit codes 130 and 143, and how to go on")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_and_resumed(number: int, code: int, model_folder: Path, text_file: Path, tmp_path: Path) -> None:
    # Without a signal this would go on for minutes.
    text_file.write_text(make_text(60_000))
    options = ["--num-blocks", 3, "--dataset", text_file, "--window-length", 20, "--max-windows", 3000]
    arguments = ["sleb", "prune", "--model", model_folder, *options, "--device", "cpu", "--output", tmp_path / "out"]
    process = subprocess.Popen([*COMMAND, *map(str, arguments)], stderr=subprocess.PIPE, text=True)
    journal = tmp_path / "out" / JOURNAL_FILE_NAME
    while not journal.is_file():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"stopped by {signal.Signals(number).name}" in errors.splitlines()[-1]
    assert errors.splitlines()[-1].endswith("what was measured is kept; repeat the command with --resume to go on.")
    assert "Traceback" not in errors
    done = run(*arguments)
    assert done.returncode == 2
    assert "holds the journal of an earlier run; go on from it (resume=True, --resume)" in done.stderr


@pytest.mark.parametrize(("files", "state"), [
    ([], "nothing was measured yet"),
    (["model.safetensors"], "holds a whole model"),
    ([JOURNAL_FILE_NAME], "no removal is decided yet, and what was measured is kept; repeat .* --resume"),
    ([JOURNAL_FILE_NAME, "model.safetensors"], "the model that is there is as it was, and what .* --resume"),
])  # fmt: skip
def test_the_line_after_a_signal(files: list[str], state: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(SystemExit) as ended, exit_on_signals("prune", str(tmp_path)):
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 143
    assert re.search(f"stopped by SIGTERM; .*{state}", capsys.readouterr().err)


@pytest.mark.long
def test_resume(sleb, model_folder: Path, text_file: Path, tmp_path: Path) -> None:
    options = ["--num-blocks", 2, "--dataset", text_file, "--window-length", 20]
    done = sleb("prune", "--model", model_folder, *options, "--output", tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    done = sleb("prune", "--model", model_folder, *options, "--output", tmp_path / "out", "--resume")
    assert done.returncode == 2
    assert "There is no journal in" in done.stderr
    pruner = SLEBPruner.from_pretrained(model_folder)
    config = SLEBConfig(num_blocks_to_remove=2, dataset=str(text_file), window_length=20)
    pruner.prune(config, progress_dir=tmp_path / "out")  # and dies before it saves
    done = sleb("prune", "--model", model_folder, *options, "--output", tmp_path / "out", "--resume")
    assert done.returncode == 0, done.stderr
    whole, resumed = PruningReport.load(tmp_path / "whole"), PruningReport.load(tmp_path / "out")
    assert [step.candidate_losses for step in resumed.steps] == [step.candidate_losses for step in whole.steps]
    assert not (tmp_path / "out" / JOURNAL_FILE_NAME).exists()
