"""A card names the runtimes that were run for such a model, and no others."""

import json
import runpy
from dataclasses import replace

import pytest

from optimum_sleb.card.card import render_card
from optimum_sleb.card.runtimes import PROVEN

from ..conftest import ROOT
from ..report.test_report import make_report

RESULTS = json.loads((ROOT / "benchmarks" / "runtimes.json").read_text(encoding="utf-8"))
PAGE = runpy.run_path(str(ROOT / "benchmarks" / "runtimes_page.py"))


def test_what_is_proven_was_measured() -> None:
    measured = {model["architecture"]: PAGE["runtimes_of"](model) for model in RESULTS["models"].values()}
    assert measured == PROVEN


def used(**changes: object) -> str:
    card = render_card(replace(make_report(), **changes), "me/pruned").text
    return card.partition("## Use")[2].partition("## How it was made")[0]


def test_a_card_names_them() -> None:
    text = used()
    for runtime in PROVEN["LlamaForCausalLM"]:
        assert runtime in text
    for other in ("vLLM", "vllm", "SGLang", "MLX", "Ollama"):
        assert other not in text


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "OPTForCausalLM"},
        {"loading": {"trust_remote_code": "True"}},
        {"loading": {"quantization_config": "x"}},
    ],
)
def test_where_nothing_was_proven_none_is_named(changes: dict) -> None:
    text = used(**changes)
    assert "Any runtime that reads such a config can load it." in text
    assert not any(runtime in text for runtime in PROVEN["LlamaForCausalLM"] if runtime != "transformers")
