"""The page on reliability names the tests of every row, and says how often they try.

Its numbers change with the tests; `pytest -k reliability_page` says in a few seconds what they must be.
"""

import ast
import os
from pathlib import PurePath
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from .conftest import ROOT
from .tried import COLLECTED, TRIED, pytest_terminal_summary, tries_in


class Told(NamedTuple):
    happens: str
    tries: str
    lost: str
    files: str


def page() -> list[Told]:
    lines = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    return [Told(*row) for row in rows[1:]]  # after the heading


def test_the_page_has_these_rows() -> None:
    expected = [(row.happens, ", ".join(f"`{PurePath(file).name}`" for file in row.files)) for row in TRIED]
    assert [(told.happens, told.files) for told in page()] == expected


@pytest.mark.parametrize("file", sorted({file for row in TRIED for file in row.files}))
def test_every_test_is_there(file: str) -> None:
    there = set()
    for node in ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            there |= {f"{node.name}::{method.name}" for method in node.body if isinstance(method, ast.FunctionDef)}
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            there.add(node.name)
    tests = [test.split("::", 1) for row in TRIED for test in row.tests]
    assert {name.split("[")[0] for place, name in tests if place == file} <= there


def test_the_numbers_of_tries(request: pytest.FixtureRequest) -> None:
    """Of rows whose files were collected; what needs a GPU does not count."""
    config = request.config
    if config.option.lf or any("::" in argument for argument in config.args):
        pytest.skip("only a part of a file may be collected")
    if "FUZZ_EXAMPLES" in os.environ:
        pytest.skip("the page tells of FUZZ_EXAMPLES as it stands in the test")
    items = [item for item in config.stash[COLLECTED] if not item.get_closest_marker("cuda")]
    collected = {item.nodeid.split("::")[0].removeprefix("tests/") for item in items}
    wrong = [
        f"{told.tries} must be {tries_in(row, items)}: {row.happens}"
        for row, told in zip(TRIED, page(), strict=True)
        if collected.issuperset(row.files) and told.tries != str(tries_in(row, items))
    ]
    assert not wrong, "in docs/reliability.md:\n" + "\n".join(wrong)


def test_a_run_ends_with_what_passed() -> None:
    def item(name: str, *marks: pytest.Mark) -> SimpleNamespace:
        node_id = f"tests/test_batching.py::{name}"
        return SimpleNamespace(nodeid=node_id, get_closest_marker=lambda _: next(iter(marks), None))

    often = item("test_every_window_once", pytest.mark.tries(100).mark)
    blocks = "test_a_search_step_survives_failures_at_any_block"
    others = [item(f"{blocks}[{number}]") for number in range(4)]
    lines: list[str] = []
    stats = {"passed": [often, *others[:2]], "failed": others[2:3], "skipped": others[3:]}
    reporter = SimpleNamespace(stats=stats, section=lambda title: None, write_line=lines.append)
    pytest_terminal_summary(reporter, SimpleNamespace(stash={COLLECTED: [often, *others]}))
    assert lines[0].splitlines() == [
        f"   2 tries passed, 1 failed, 1 skipped: {TRIED[6].happens}",
        f" 100 tries passed: {TRIED[7].happens}",
    ]
