"""The house rules: functions, files and the package stay small enough to be read."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import ROOT

PACKAGE = ROOT / "optimum_sleb"
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES_OF_A_FUNCTION = 60  # from `def` to the end, without the docstring
MOST_LINES_OF_A_FILE = 300
# What the package could do when its rooms were laid out fits 12,000 lines. A feature that is added since has a budget.
MOST_LINES_OF_ALL = 12_000 + sum(
    {
        "limits: blocks that may go, targets for parameters, memory and speed": 830,
        "a criterion of one's own, callbacks and services judged before data and closed after errors, the log": 1_015,
        "strange inputs: locks, recovery of a killed save, lazy reading, checks before loading, the last net": 1_300,
        "data: places, formats, readers, the Hub, options of reading, mixtures with weights, the early look": 690,
        "columns by TRL's conventions: chats, completions, masks; data in memory; document separators": 580,
        "best without training: search over sets and its report, KL, compensation of every block, presets": 1_300,
        "in hand: table, plot, files from the Hub, keywords, companions of the weights, checks before loading": 950,
        "healing: LoRA, full and distillation, packing, written teachers, text of the model's own, its command": 1_752,
        "first contact: help in order with examples, what a card says of a local dense model, names in the plot": 390,
        "runtimes: those that a card may name, and the export to GGUF, mergekit and llama-quantize": 260,
        "before the first step: what the checks of all blocks share, the dense model by norm and head alone": 190,
    }.values()
)
MOST_MODULES_AT_THE_TOP = 12


def lines_of(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every function and its number of lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            documented = ast.get_docstring(node) is not None
            docstring = first.end_lineno - first.lineno + 1 if documented else 0
            yield node.name, node.end_lineno - node.lineno + 1 - docstring


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_files_and_functions_are_short(file: Path) -> None:
    assert lines_of(file) <= MOST_LINES_OF_A_FILE
    tree = ast.parse(file.read_text(encoding="utf-8"))
    long = {name: lines for name, lines in functions(tree) if lines > MOST_LINES_OF_A_FUNCTION}
    assert long == {}


def test_there_are_few_modules_at_the_top() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_MODULES_AT_THE_TOP


def test_the_package_is_small() -> None:
    assert sum(map(lines_of, FILES)) <= MOST_LINES_OF_ALL


def test_lines_of_a_function_are_counted_without_its_docstring() -> None:
    source = 'def f(\n    a,\n):\n    """One.\n\n    Two.\n    """\n    def g():\n        return 1\n\n    return g\n'
    assert dict(functions(ast.parse(source))) == {"f": 7, "g": 2}
