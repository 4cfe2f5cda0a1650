"""The README and a newcomer's pages are run as they are written, with a tiny model in the place of the large one."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from optimum_sleb import SLEBCallback, SLEBPruner

from .conftest import ROOT
from .families import tiny_model
from .hub.local_hub import LocalHub
from .test_trainer import sft_trainer

MODEL = "HuggingFaceTB/SmolLM2-135M"
README = "README.md"
QUICKSTART = "docs/quickstart.md"


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text_of(page), flags=re.DOTALL)


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
def test_python(put_in_place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(README, "python")
    assert blocks(QUICKSTART, "python") == [code]
    assert MODEL in code
    assert len([line for line in code.splitlines() if line]) == 5
    exec(compile(put_in_place(code), README, "exec"), {})
    assert (tmp_path / "smollm2-sleb-20" / "config.json").is_file()


@pytest.mark.long
def test_python_of_the_hub_page(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer) -> None:
    monkeypatch.chdir(tmp_path)
    for code in blocks("docs/hub.md", "python"):
        names: dict[str, Any] = {"pruner": SLEBPruner(tiny_model(), tokenizer)}
        names["pruner"].remove([2])
        exec(code.replace('("smaller"', '("smaller", overwrite=True'), names)
        assert "config.json" in hub.files("me/smaller")
    assert "license: apache-2.0" in (tmp_path / "smaller" / "README.md").read_text()


@pytest.mark.long
def test_trainer(tmp_path: Path, tokenizer, one_thread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pruning, callback = blocks("docs/trainer.md", "python")
    model = tiny_model()
    names: dict[str, Any] = {"trainer": sft_trainer(tmp_path, model, tokenizer)}
    exec(callback, names)
    exec(pruning, names)
    assert model.config.num_hidden_layers == 4
    assert names["trainer"].callback_handler.callbacks[-1].__class__ is SLEBCallback
    assert (tmp_path / "pruned" / "config.json").is_file()


def commands_of(page: str) -> str:
    return "\n".join(code for code in blocks(page, "bash") if "optimum-cli" in code)


@pytest.mark.long
def test_commands(put_in_place, hub: LocalHub, tmp_path: Path) -> None:
    commands = commands_of(QUICKSTART)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", put_in_place(commands)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "smollm2-best" / "config.json").is_file()
    assert "config.json" in hub.files("me/smollm2-sleb")


def test_the_commands_of_the_readme_are_those_of_the_quickstart() -> None:
    first, second = (
        [line for line in commands_of(page).splitlines() if line.startswith("optimum-cli sleb")]
        for page in (README, QUICKSTART)
    )
    assert len(first) == 3
    assert first == second[:3]
    assert len(second) >= 8


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"(?:^|`)make ([\w-]+)", text_of(README), re.MULTILINE))
    assert {"demo", "docs", "test", "wheel"} <= targets
    for target in targets:
        done = subprocess.run(["make", "--dry-run", target], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr


def test_it_fits_two_screens() -> None:
    assert len(text_of(README).splitlines()) <= 120


def test_the_numbers_are_those_that_were_measured() -> None:
    results = json.loads(text_of("benchmarks/results.json"))
    healed = json.loads(text_of("docs/healing.json"))["models"]
    (prompt,) = [one for one in results["speeds"]["smollm2"] if (one["name"], one["scenario"]) == ("20 %", "prompt")]
    models = [healed[name] for name in ("dense", "plain", "best", "full-best")]
    expected = {
        "perplexity, WikiText-2": [f"{one['wikitext2']['perplexity']:.1f}" for one in models],
        "perplexity, C4": [f"{one['c4']['perplexity']:.1f}" for one in models],
        "zero-shot, mean of five tasks": [f"{one['zero_shot_mean'][0]:.1%}".replace("%", " %") for one in models],
        "a prompt of 2048 tokens, one H100": [f"{prompt['before']:.1f} ms", f"{prompt['after']:.1f} ms"],
        "parameters": [f"{results['models'][name]['parameters'] / 1e6:.1f} M" for name in ("dense", "20 %")],
    }
    for name, numbers in expected.items():
        cells = re.search(rf"^\| {re.escape(name)} \|(.*)\|$", text_of(README), re.MULTILINE)[1].split("|")
        assert [cell.strip() for cell in cells][: len(numbers)] == numbers, name
