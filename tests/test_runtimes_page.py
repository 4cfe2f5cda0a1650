"""The page on runtimes shows what was measured, and its commands are real."""

import json
import re
import runpy
from argparse import ArgumentParser

import pytest

from optimum_sleb.cli.export import ExportCommand

from .conftest import ROOT

WRITER = runpy.run_path(str(ROOT / "benchmarks" / "runtimes_page.py"))
PAGE = (ROOT / "docs" / "runtimes.md").read_text(encoding="utf-8")
RESULTS = json.loads((ROOT / "benchmarks" / "runtimes.json").read_text(encoding="utf-8"))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return runpy.run_path(str(ROOT / "benchmarks" / "runtimes.py"))


def test_the_page_is_what_was_measured() -> None:
    assert WRITER["filled"](PAGE, RESULTS) == PAGE, "run benchmarks/runtimes.py page again"


def test_no_cell_is_empty() -> None:
    lines = [line for line in WRITER["figures"](RESULTS).splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len(rows) == sum(2 + len(model["results"]) for model in RESULTS["models"].values())
    assert all(cell for row in rows for cell in row[1:])


def test_every_runtime_did_what_it_must(script) -> None:
    assert set(RESULTS["models"]["smollm2"]["results"]) == {"dense", *WRITER["NAMES"]}
    for model in RESULTS["models"].values():
        assert {"dense", "peft", "trl"} <= set(model["results"]) <= {"dense", *WRITER["NAMES"]}
        for name, one in model["results"].items():
            if name != "dense":
                assert one["next"] >= script["least"](name, one["tokens"])
    assert script["least"]("transformers", 96) == script["least"]("gguf-f32", 96) == 96


def test_a_model_that_is_not_the_same_would_not_pass(script) -> None:
    for model in RESULTS["models"].values():
        dense = model["results"]["dense"]
        assert dense["next"] < script["least"]("bitsandbytes-nf4", dense["tokens"])


def test_the_commands_can_be_read() -> None:
    commands = re.findall(r"optimum-cli sleb export (.+)", PAGE.replace("\\\n", " "))
    assert len(commands) == 3
    for command in commands:
        parser = ArgumentParser()
        ExportCommand.parse_args(parser)
        parser.parse_args(command.split())


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    headings = [line[3:].lower() for line in PAGE.splitlines() if line.startswith("## ")]
    anchors = {re.sub(r"[^\w -]", "", heading).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= anchors
