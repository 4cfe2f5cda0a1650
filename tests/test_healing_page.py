"""The healing page shows what the benchmark measured, and its code runs."""

import json
import re
import runpy
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from optimum_sleb import PruningReport, SLEBPruner

from .conftest import ROOT, make_text, make_tokenizer
from .families import tiny_model
from .test_trainer import plain_trainer

BENCHMARK = runpy.run_path(str(ROOT / "benchmarks" / "healing.py"))
PAGE = (ROOT / "docs" / "healing.md").read_text(encoding="utf-8")
RESULTS = {
    "made": {
        "date": "2026-11-26",
        "steps": 150,
        "batch_size": 16,
        "length": 512,
        "rank": 64,
        "learning_rate": 2e-4,
        "lora_learning_rate": 2e-3,
        "windows": 96,
        "window_length": 2048,
        "limit": 1000,
        "device": "H100",
        "gpus": 2,
        "torch": "2.11.0",
        "transformers": "5.17.0",
    },
    "models": {
        "dense": {
            "wikitext2": {"perplexity": 20.0, "windows": 148},
            "c4": {"perplexity": 30.0, "windows": 100},
            "zero_shot_mean": [0.48, 0.005],
            "lambada": [0.3, 0.015],
        },
        "plain": {
            "blocks": [5, 4],
            "wikitext2": {"perplexity": 60.0, "windows": 148},
            "c4": {"perplexity": 70.0, "windows": 100},
            "zero_shot_mean": [0.4, 0.005],
        },
        "compensated": {
            "blocks": [3, 4],
            "prune_seconds": 30.0,
            "wikitext2": {"perplexity": 40.0, "windows": 148},
            "c4": {"perplexity": 50.0, "windows": 100},
            "zero_shot_mean": [0.43, 0.005],
        },
        "full-plain": {
            "steps": 300,
            "tokens": 2_457_600,
            "seconds": 36.0,
            "wikitext2": {"perplexity": 30.0, "windows": 148},
            "c4": {"perplexity": 40.0, "windows": 100},
            "zero_shot_mean": [0.45, 0.005],
        },
    },
}


def test_the_page_is_what_was_measured() -> None:
    results = json.loads(BENCHMARK["RESULTS"].read_text(encoding="utf-8"))
    assert BENCHMARK["filled"](PAGE, results) == PAGE, "run benchmarks/healing.py page again"


def test_the_table_follows_from_the_results() -> None:
    page = BENCHMARK["filled"](PAGE, RESULTS)
    assert "| dense | 20.0 | 30.0 |  | 48.0 ± 0.5 | 30.0 ± 1.5 |  |  |\n" in page
    assert "| pruned | 60.0 | 70.0 |  | 40.0 ± 0.5 |  |  |  |\n" in page
    assert "| pruned, then full fine-tuning | 30.0 | 40.0 | 75% / 75% | 45.0 ± 0.5 |  | 2.5 M | 0.6 |\n" in page
    assert "| compensated | 40.0 | 50.0 | 50% / 50% | 43.0 ± 0.5 |  |  | 0.5 |\n" in page
    assert "LoRA |" not in page.partition("What it gives")[2].partition("SmolLM2")[0]  # what failed is not shown
    assert "learning rate 0.0002" in page
    assert "learning rate 0.002" not in page  # LoRA's, which failed
    assert BENCHMARK["filled"](page, RESULTS) == page


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target


@pytest.mark.long
def test_the_code_runs(tmp_path: Path, tokenizer, one_thread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pruner = SLEBPruner(tiny_model(), make_tokenizer(add_bos=False))
    pruner.remove([2, 3])
    pruner.save_pretrained("pruned")
    Path("my_text.jsonl").write_text(json.dumps({"text": make_text(400)}) + "\n")
    call, code = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    quick = 'data="my_text.jsonl", steps=2, batch_size=2, window_length=20'
    exec(call.replace('data="my_text.jsonl"', quick).replace('device_map="cuda"', 'device_map="cpu"'), {})
    (healing,) = PruningReport.load("healed").healing
    assert (healing.method, healing.dataset) == ("LoRA of rank 64, merged", "my_text.jsonl")
    shutil.rmtree("healed")
    trainer = plain_trainer(tmp_path, AutoModelForCausalLM.from_pretrained("pruned"), tokenizer)
    exec(code, {"trainer": trainer})
    assert AutoModelForCausalLM.from_pretrained("healed").config.use_cache is True
