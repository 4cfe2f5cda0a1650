"""The way from `SLEBPruner.prune` to the loss of a candidate is short, and is the one that CONTRIBUTING.md names."""

import inspect
import re
import sys
from itertools import takewhile
from pathlib import Path
from traceback import walk_stack
from types import CodeType
from typing import Any

import pytest

import optimum_sleb
from optimum_sleb import SLEBConfig, SLEBPruner
from optimum_sleb.blocks.runner import BlockRunner

from .conftest import ROOT
from .families import random_ids, tiny_model

PACKAGE = Path(optimum_sleb.__file__).parent
MOST_CALLS = 8  # `prune` is not counted, `BlockRunner.losses` is


def describe(code: CodeType) -> str:
    return f"{Path(code.co_filename).relative_to(PACKAGE).as_posix()}: {code.co_qualname}"


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, ...]]:
    """The calls of the package from below `prune` to the loss of a candidate, in each way that they were made."""
    losses = BlockRunner.losses
    found = set()

    def follow(*arguments: Any) -> Any:
        codes = [frame.f_code for frame, _ in walk_stack(sys._getframe(1))]
        below_prune = takewhile(lambda code: code is not inspect.unwrap(SLEBPruner.prune).__code__, codes)
        calls = [losses.__code__, *(code for code in below_prune if PACKAGE in Path(code.co_filename).parents)]
        way = tuple(describe(code) for code in reversed(calls))
        if any(call.startswith("search/greedy.py") for call in way):  # else a check, or the loss before any removal
            found.add(way)
        return losses(*arguments)

    monkeypatch.setattr(BlockRunner, "losses", follow)
    return found


def test_few_calls_lead_to_a_loss(ways: set[tuple[str, ...]]) -> None:
    config = SLEBConfig(num_blocks_to_remove=2, search="exact", batch_size=1)
    SLEBPruner(tiny_model("llama")).prune(config, calibration=random_ids(2, 12))
    (way,) = ways
    assert len(way) <= MOST_CALLS, "\n".join(way)
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = page.partition("## Where is the loss of a candidate computed?")[2].partition("\n## ")[0]
    documented = [f"{file}: {call}" for file, call in re.findall(r"^\d\. `(.+?)`: `(.+?)`", section, re.MULTILINE)]
    assert len(documented) == 5
    assert documented == [call for call in way if call in documented]
