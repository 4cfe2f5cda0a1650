"""Counts what the tests try that are marked with it, and writes the table of docs/reliability.md.

A mark says what happens, which is the row, and what is lost:
`@pytest.mark.reliability("the disk is full", lost="nothing")`. A test makes one try, or as many as its mark `tries`
says; what needs a GPU does not count.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

COLLECTED = pytest.StashKey[list[pytest.Item]]()
BEGINNING = "<!-- The table is written by `make reliability`. -->\n"
END = "<!-- The end of the table. -->\n"
HEADING = "| what happens | tries | what was lost | test |\n|---|---:|---|---|\n"


@dataclass(frozen=True)
class Row:
    happens: str
    lost: str


def rows_of(item: pytest.Item) -> set[Row]:
    if item.get_closest_marker("cuda"):
        return set()
    return {Row(*mark.args, **mark.kwargs) for mark in item.iter_markers("reliability")}


def tries_of(item: pytest.Item) -> int:
    marker = item.get_closest_marker("tries")
    return marker.args[0] if marker else 1


def table(items: Iterable[pytest.Item], before: str = "") -> str:
    """The table of what these tests try; rows stay where they stood before, and new ones come last."""
    tries: Counter[Row] = Counter()
    files: dict[Row, set[str]] = {}
    for item in items:
        for row in rows_of(item):
            tries[row] += tries_of(item)
            files.setdefault(row, set()).add(f"`{item.path.name}`")
    known = [line.strip("| ").split(" | ")[0] for line in before.splitlines()]
    places = {happens: place for place, happens in enumerate(known)}
    rows = sorted(tries, key=lambda row: places.get(row.happens, len(places)))
    lines = [f"| {row.happens} | {tries[row]} | {row.lost} | {', '.join(sorted(files[row]))} |\n" for row in rows]
    return HEADING + "".join(lines)


def table_of(page: str) -> str:
    return page.partition(BEGINNING)[2].partition(END)[0]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--reliability-page", type=Path, help="where to write what was tried, if nothing failed and all was tried"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Before -m and -k choose some: the page can be checked without running what it tells of."""
    config.stash[COLLECTED] = list(items)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: pytest.ExitCode, config: pytest.Config
) -> None:
    outcomes = {
        report.nodeid: outcome
        for outcome in ("passed", "skipped", "failed", "error")
        for report in terminalreporter.stats.get(outcome, ())
    }
    ran = [item for item in config.stash.get(COLLECTED, ()) if item.nodeid in outcomes]
    lines = summary(ran, outcomes)
    if lines:
        terminalreporter.section("what docs/reliability.md tells of")
        terminalreporter.write_line("\n".join(lines))
    page = config.option.reliability_page
    if page and exitstatus == pytest.ExitCode.OK:
        marked = [item for item in config.stash[COLLECTED] if rows_of(item)]
        untried = {row.happens for item in marked for row in rows_of(item)} - {
            row.happens for item in ran if outcomes[item.nodeid] == "passed" for row in rows_of(item)
        }
        if untried:
            terminalreporter.write_line(f"{page} stays as it is, since nothing was tried of: {'; '.join(untried)}")
        else:
            text = page.read_text(encoding="utf-8")
            page.write_text(text.replace(table_of(text), table(ran, table_of(text))), encoding="utf-8")


def summary(ran: Iterable[pytest.Item], outcomes: Mapping[str, str]) -> list[str]:
    """One line for each row of which a test ran."""
    tries: dict[Row, Counter[str]] = {}
    for item in ran:
        for row in rows_of(item):
            tries.setdefault(row, Counter())[outcomes[item.nodeid]] += tries_of(item)
    lines = []
    for row, counts in tries.items():
        others = "".join(f", {number} {outcome}" for outcome, number in counts.items() if outcome != "passed")
        if counts.keys() - {"skipped"}:
            lines.append(f"{counts['passed']:4} tries passed{others}: {row.happens}")
    return lines
