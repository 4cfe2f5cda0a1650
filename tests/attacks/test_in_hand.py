"""Strange names and keywords, by the doors of a program: files from the Hub, repositories, fields of a recipe."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optimum_sleb import PruningReport, SLEBConfig, SLEBPruner
from optimum_sleb.hub.target import check_target

from ..families import tiny_model
from ..hub.local_hub import LocalHub
from .harness import Outcome, assert_refused, call

NAMES = {
    "nothing": "",
    "256 bytes": "n" * 256,
    "5000 bytes": "n" * 5000,
    "three parts": "a/b/c",
    "a root": "/",
    "a parent": "../..",
    "a null byte": "a\0b",
    "escapes": "\x1b[2J\u202e",
    "a line break": "me/a\nb",
    "not UTF-8": os.fsdecode(b"me/\xff"),
    "an address": "https://huggingface.co/me/a",
    "a query": "me/a?token=hf_abcdefgh",
    "a device": "/dev/zero",
    "a template": "{{ 7*7 }}",
}
DOORS: dict[str, Callable[[str], Outcome]] = {
    "recipe": lambda name: call(SLEBConfig.from_pretrained, name),
    "report": lambda name: call(PruningReport.from_pretrained, name),
    "revision": lambda name: call(PruningReport.from_pretrained, "me/a", revision=name or "\n"),
    "repository": lambda name: call(check_target, name),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("what", NAMES)
def test_name(what: str, door: str, hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(DOORS[door](NAMES[what]))
    assert os.listdir(tmp_path) == ([] if not (tmp_path / "hub-cache").exists() else ["hub-cache"])


KEYWORDS: dict[str, dict[str, Any]] = {
    "of another class": {"sparsity": 0.2, "self": 1},
    "private": {"sparsity": 0.2, "_check_types": None},
    "long": {"sparsity": 0.2, "n" * 10**5: 1},
    "escapes": {"sparsity": 0.2, "\x1b[2J": 1},
    "of another type": {"sparsity": [0.2]},
    "NaN": {"sparsity": float("nan")},
    "a bool": {"num_blocks_to_remove": True},
    "a huge number": {"num_blocks_to_remove": 10**400},
    "a long text": {"sparsity": 0.2, "search": "x" * 10**5},
}


@pytest.mark.parametrize("what", KEYWORDS)
def test_keywords(what: str) -> None:
    outcome = call(SLEBPruner(tiny_model()).prune, calibration=[[3, 4, 5]], **KEYWORDS[what])
    assert_refused(outcome)
