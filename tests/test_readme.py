"""The README is run as it is written, with a tiny model in the place of the large one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from optimum_sleb import SLEBCallback, SLEBConfig, SLEBPruner

from .conftest import ROOT
from .families import tiny_model
from .hub.local_hub import LocalHub
from .test_trainer import sft_trainer

README = (ROOT / "README.md").read_text(encoding="utf-8")
MODEL = "HuggingFaceTB/SmolLM2-135M"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def put_in_place(model_folder: Path, text_file: Path):
    def replace(code: str) -> str:
        # What needs the Hub, a GPU or long text is replaced; the rest stays as a reader would type it.
        for needed, here in {
            MODEL: str(model_folder),
            "best(sparsity=0.2)": f'best(sparsity=0.2, dataset="{text_file}", window_length=20)',
            "--preset best": f"--preset best --dataset {text_file} --window-length 20",
            "--dataset wikitext2": f"--dataset {text_file} --window-length 20",
            "--tasks wikitext2 c4": f"--tasks {text_file} --window-length 20",
            "sleb benchmark ": "sleb benchmark --prompt 20 --batch-sizes 1 --new-tokens 2 --repeats 1 ",
            'device_map="cuda"': 'device_map="cpu"',
        }.items():
            code = code.replace(needed, here)
        return code

    return replace


@pytest.mark.long
def test_python(put_in_place, hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, *_ = blocks("python")
    assert MODEL in code
    exec(compile(put_in_place(code), "README.md", "exec"), {})
    assert (tmp_path / "smollm2-sleb-20" / "config.json").is_file()
    assert "config.json" in hub.files("me/smollm2-sleb-20")


@pytest.mark.long
def test_trainer(tmp_path: Path, tokenizer, one_thread) -> None:
    (code,) = [code for code in blocks("python") if "from_trainer" in code]
    (callback,) = re.findall(r"`(trainer\.add_callback\(.*?\))`", README)
    model = tiny_model()
    names = {"SLEBPruner": SLEBPruner, "SLEBConfig": SLEBConfig, "SLEBCallback": SLEBCallback}
    names["trainer"] = trainer = sft_trainer(tmp_path, model, tokenizer)
    exec(callback, names)
    exec(code, names)
    assert model.config.num_hidden_layers == 4
    assert trainer.callback_handler.callbacks[-1].__class__ is SLEBCallback


@pytest.mark.long
def test_commands(put_in_place, hub: LocalHub, tmp_path: Path) -> None:
    commands = "\n".join(code for code in blocks("bash") if "optimum-cli" in code)
    assert commands.count("optimum-cli sleb") >= 3
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", put_in_place(commands)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    assert "config.json" in hub.files("me/smollm2-sleb")


def test_make_targets_exist() -> None:
    targets = re.findall(r"make (\w+)", "\n".join(blocks("bash")))
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        done = subprocess.run(["make", "--dry-run", target], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
