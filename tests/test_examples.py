"""The examples, run as they stand, with a tiny model in the place of a large one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from optimum_sleb import PruningReport, SLEBConfig, SLEBPruner, perplexity

from .conftest import ROOT, make_text, make_tokenizer
from .families import tiny_model
from .hub.local_hub import LocalHub


@pytest.mark.long
def test_push_to_hub(hub: LocalHub, model_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "examples" / "push_to_hub.py", model_folder, tmp_path / "out", "--repo", "me/a"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"pushed to {hub.url}/me/a/commit/" in done.stdout
    (record,) = PruningReport.load(tmp_path / "out").evaluations
    assert f"{record.before:.2f} before, {record.after:.2f} after" in done.stdout
    assert f"| {record.before:.2f} | {record.after:.2f} |" in hub.files("me/a")["README.md"].decode()
    assert AutoModelForCausalLM.from_pretrained("me/a").config.num_hidden_layers == 4


@pytest.fixture
def pruned_folder(tmp_path: Path) -> Path:
    tiny_model().save_pretrained(tmp_path / "dense")
    pruner = SLEBPruner(tiny_model(), make_tokenizer(add_bos=False))
    pruner.prune(SLEBConfig(num_blocks_to_remove=2, window_length=20), calibration=[make_text(200)])
    return pruner.save_pretrained(tmp_path / "pruned")


def divergence(model: PreTrainedModel, dense: PreTrainedModel, ids: torch.Tensor) -> float:
    with torch.no_grad():
        given, wanted = (one(ids).logits.log_softmax(-1) for one in (model, dense))
    return torch.nn.functional.kl_div(given, wanted, log_target=True, reduction="sum").item()


@pytest.mark.long
@pytest.mark.parametrize(
    ("recipe", "more", "method"),
    [
        ("heal_with_trainer", [], "full fine-tuning"),
        ("heal_with_lora", ["--rank", "4"], "LoRA of rank 4, merged"),
        ("distill_from_dense", ["--dense", "dense"], "distillation from dense"),
    ],
)
def test_healing(recipe: str, more: list[str], method: str, pruned_folder: Path, tmp_path: Path) -> None:
    # Words in a fixed order, which a model this small can learn.
    text, output = tmp_path / "text.txt", tmp_path / "healed"
    text.write_text(" ".join([make_text(10)] * 40))
    options = ["--text", text, "--test-text", text, "--steps", 12, "--batch-size", 4, "--length", 20]
    command = [sys.executable, ROOT / "examples" / f"{recipe}.py", pruned_folder, output, *options, *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr

    again = AutoModelForCausalLM.from_pretrained(output)
    tokenizer = AutoTokenizer.from_pretrained(output)
    assert again.config.use_cache is True
    assert again.config.num_hidden_layers == 4
    report = PruningReport.load(output)
    (measured,) = report.evaluations
    if recipe == "distill_from_dense":  # the dense model is random, and knows nothing of the text
        pruned, dense = (AutoModelForCausalLM.from_pretrained(name) for name in (pruned_folder, tmp_path / "dense"))
        ids = torch.tensor([tokenizer(text.read_text()).input_ids[:20]])
        assert divergence(again, dense, ids) < 0.9 * divergence(pruned, dense, ids)
    else:
        assert measured.after < measured.pruned
    assert measured.after == pytest.approx(perplexity(again, tokenizer, str(text), window_length=20).perplexity)
    (healing,) = report.healing
    assert (healing.method, healing.steps, healing.tokens) == (method, 12, 12 * 4 * 20)
    assert f"{measured.pruned:.2f} pruned, {measured.after:.2f} healed" in done.stdout
    assert "12/12" in done.stderr  # the progress bar
    if recipe == "heal_with_lora":
        adapter = json.loads((tmp_path / "healed-adapter" / "adapter_config.json").read_text())
        assert adapter["base_model_name_or_path"] == str(pruned_folder)


@pytest.mark.long
def test_no_model_is_replaced_unasked(pruned_folder: Path) -> None:
    command = [sys.executable, ROOT / "examples" / "heal_with_trainer.py", pruned_folder, pruned_folder]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode != 0
    assert "already holds a model" in done.stderr.splitlines()[-1]


@pytest.mark.long
def test_multiple_choice(model_folder: Path, tmp_path: Path) -> None:
    rows, output, letters = tmp_path / "rows.jsonl", tmp_path / "out", ["w10", "w11", "w12"]
    row = {"choices": ["w3", "w4", "w5"]}
    lines = [row | {"question": make_text(4 + number % 3, seed=number), "answer": number % 3} for number in range(12)]
    rows.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    script = ROOT / "examples" / "prune_for_multiple_choice.py"
    command = [sys.executable, script, model_folder, rows, output, "--num-blocks", 2, "--letters", *letters]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = PruningReport.load(output)
    assert report.criterion == "__main__:SoftErrors"
    numbers = f"{report.criterion_before:.4f} | {report.criterion_after:.4f}"
    name = r"mean of \_\_main\_\_:SoftErrors, a tokenised Dataset"
    assert f"| {name} | {numbers} |" in (output / "README.md").read_text()

    tokenizer = AutoTokenizer.from_pretrained(output)
    ids = [tokenizer(letter).input_ids[0] for letter in letters]
    errors, right = 0.0, 0
    for line in lines:
        shown = [f"{letter}. {choice}" for letter, choice in zip(letters, line["choices"], strict=True)]
        prompt = tokenizer("\n".join([line["question"], *shown, "Answer:"]), return_tensors="pt")
        with torch.no_grad():
            scores = AutoModelForCausalLM.from_pretrained(output)(**prompt).logits[0, -1, ids]
        answer = line["answer"]
        lead = scores[answer] - max(score for number, score in enumerate(scores) if number != answer)
        errors, right = errors + torch.sigmoid(-lead).item(), right + int(lead > 0)
    assert report.criterion_after == pytest.approx(errors / 12, rel=1e-5)
    assert f"{right / 12:.3f} after, on 12 questions" in done.stdout
