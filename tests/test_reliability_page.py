"""The page on reliability tells what the tests try, and how often; `make reliability` writes its table."""

import os
from pathlib import Path

import pytest

from .conftest import ROOT
from .reliability import BEGINNING, COLLECTED, END, HEADING, table, table_of

pytest_plugins = "pytester"
PAGE = ROOT / "docs" / "reliability.md"


def test_the_page_tells_what_is_marked(request: pytest.FixtureRequest) -> None:
    """Where every file of the tests was collected, whatever of it runs."""
    items = request.config.stash[COLLECTED]
    if not {item.path for item in items}.issuperset((ROOT / "tests").rglob("test_*.py")):
        pytest.skip("only a part of the tests was collected")
    if "FUZZ_EXAMPLES" in os.environ:
        pytest.skip("the page tells of FUZZ_EXAMPLES as it stands in the test")
    told = table_of(PAGE.read_text(encoding="utf-8"))
    assert told == table(items, told), "make reliability writes what it should say"


@pytest.fixture
def page(pytester: pytest.Pytester) -> Path:
    """A page that tells of one row, beside tests that try two and need a GPU for a third."""
    pytester.makepyfile("""
        import pytest

        fire = pytest.mark.reliability("it burns", lost="a house")

        @pytest.mark.tries(30)
        @fire
        def test_often(): pass

        @fire
        @pytest.mark.parametrize("number", range(4))
        def test_again(number):
            if number == 3:
                pytest.skip()

        @pytest.mark.reliability("it rains", lost="nothing")
        class TestRain:
            def test_rain(self, request):
                assert request.config.option.keyword != "rain"

            @pytest.mark.cuda
            def test_rain_on_the_gpu(self): pass
    """)
    path = pytester.path / "page.md"
    path.write_text(f"Before.\n\n{BEGINNING}{HEADING}| it rains | 5 | a hat | `test_old.py` |\n{END}\nAfter.\n")
    return path


def run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess("-p", "tests.reliability", "--reliability-page", "page.md", *options)


def test_the_table_is_written_from_the_run(page: Path, pytester: pytest.Pytester) -> None:
    result = run(pytester)
    result.stdout.fnmatch_lines(["  33 tries passed, 1 skipped: it burns", "   1 tries passed: it rains"])
    name = next(pytester.path.glob("test_*.py")).name
    rain, fire = f"| it rains | 1 | nothing | `{name}` |\n", f"| it burns | 34 | a house | `{name}` |\n"
    assert page.read_text() == f"Before.\n\n{BEGINNING}{HEADING}{rain}{fire}{END}\nAfter.\n"


@pytest.mark.parametrize(
    ("chosen", "line"),
    [
        ("often", "page.md stays as it is, since nothing was tried of: *"),
        ("rain", "*0 tries passed, 1 failed*"),
    ],
)
def test_the_page_stays_where_not_all_was_tried(page: Path, pytester: pytest.Pytester, chosen: str, line: str) -> None:
    before = page.read_text()
    run(pytester, "-k", chosen).stdout.fnmatch_lines([line])
    assert page.read_text() == before
