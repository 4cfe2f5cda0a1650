"""The page of results says what was measured, no more and no less."""

import json
import runpy
import sys

import pytest

from .conftest import ROOT

BENCHMARKS = ROOT / "benchmarks"


def score(dataset: str, metric: str, after: float, before: float | None, stderr: float) -> dict:
    return {
        "dataset": dataset,
        "metric": metric,
        "protocol": "8 examples",
        "after": after,
        "before": before,
        "after_stderr": stderr,
        "before_stderr": stderr,
        "difference_stderr": None if before is None else stderr / 2,
        "num_examples": 8,
    }


def speed(name: str, scenario: str, unit: str, after: float, before: float) -> dict:
    return {
        "name": name,
        "scenario": scenario,
        "protocol": "64 x 64 tokens, 128 new ones each, bfloat16 on card",
        "unit": unit,
        "after": after,
        "before": before,
        "after_spread": [after - 1, after + 1],
        "before_spread": [before - 1, before + 1],
        "after_peak_bytes": 10**9,
        "before_peak_bytes": 2 * 10**9,
        "ideal": 1.25,
        "expected": 1.2,
        "parts": {"blocks": 0.9, "head": 0.06, "rest": 0.04, "idle": 0.5},
    }


RESULTS = {
    "device": "one card",
    "date": "2026-11-26",
    "versions": {"torch": "2.11"},
    "models": {
        "dense": {
            "removed": [],
            "parameters": 134_500_000,
            "scores": [
                score("wikitext2", "perplexity", 21.8, None, 0.4),
                score("c4-second-half.jsonl", "perplexity", 29.0, None, 0.5),
                score("piqa", "acc_norm", 0.681, None, 0.011),
            ],
        },
        "20 %": {
            "removed": [5, 4],
            "parameters": 113_300_000,
            "scores": [
                score("wikitext2", "perplexity", 55.8, 21.8, 1.0),
                score("c4-second-half.jsonl", "perplexity", 74.8, 29.0, 1.5),
                score("piqa", "acc_norm", 0.6, 0.681, 0.012),
            ],
        },
    },
    "speeds": {"smollm2": [speed("20 %", "generation", "tokens/s", 1000.0, 800.0)]},
}


@pytest.fixture
def page():
    return runpy.run_path(str(BENCHMARKS / "results_page.py"))["page"]


def test_every_number_is_the_results(page) -> None:
    text = page(RESULTS)
    for line in (
        "Measured on 2026-11-26 on one card, torch 2.11, in bfloat16.",
        "- **20 %**: 113.3 M parameters, without blocks 5 4",
        "| WikiText-2 test, as published, perplexity | 21.8 ± 0.4 | 55.8 ± 1.0 |",
        "| C4 sample, second half, perplexity | 29.0 ± 0.5 | 74.8 ± 1.5 |",
        "| PIQA, acc_norm | 0.681 ± 0.011 | 0.600 ± 0.012 |",
        "| PIQA | -0.081 ± 0.006 |",
        "| dense | 800.0 | 799.0 - 801.0 |  |  | 2.00 |",
        "| 20 % | 1,000.0 | 999.0 - 1,001.0 | 1.250 | 1.250 | 1.00 |",
        "Timed on one card.",
        "Of the dense model's time 90.0% is spent in the blocks, 6.0% in the head, 4.0% elsewhere; its GPU waits for "
        "launches 50% of it.",
    ):
        assert line in text.splitlines()


def test_the_page_is_of_these_results(page) -> None:
    results = BENCHMARKS / "results.json"
    written = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    expected = page(json.loads(results.read_text(encoding="utf-8")))
    assert written == expected, "run benchmarks/results_page.py again"


def test_the_scripts_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    arguments = ["results.py", "measure", "--model", "dense", "--data-dir", "data", "--output", "results.json"]
    monkeypatch.setattr(sys, "argv", arguments)
    script = runpy.run_path(str(BENCHMARKS / "results.py"))
    assert script["parse_arguments"]().seconds == 200
    assert len(script["ORDER"]) == max(script["MODELS"].values())
