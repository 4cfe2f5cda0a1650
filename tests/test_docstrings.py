"""What is exported is documented in full; everything else says in a few lines what its name does not."""

import ast
import inspect
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

import optimum_sleb

from .conftest import ROOT

PACKAGE = ROOT / "optimum_sleb"
MOST_LINES = 3
# A function does something, and its docstring says it: "Take blocks out", not "How blocks are taken out".
QUESTIONS = ("What", "Whether", "Which", "How", "Where", "If")
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def members(exported: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties of a class, with those of the package's classes that it comes from."""
    for owner in exported.__mro__:
        if owner.__module__.startswith("optimum_sleb"):
            for name, member in vars(owner).items():
                if not name.startswith("_"):
                    yield f"{exported.__name__}.{name}", getattr(member, "__func__", member)


def exported() -> Iterator[tuple[str, Any]]:
    for name in optimum_sleb.__all__:
        value = getattr(optimum_sleb, name)
        yield name, value
        if inspect.isclass(value):
            yield from members(value)


FUNCTIONS = {name: value for name, value in exported() if inspect.isfunction(value)}
PROPERTIES = {name: value for name, value in exported() if isinstance(value, property | cached_property)}


@pytest.mark.parametrize("function", [pytest.param(function, id=name) for name, function in FUNCTIONS.items()])
def test_what_is_exported_is_documented_in_full(function: Callable[..., Any]) -> None:
    text = inspect.getdoc(function) or ""
    signature = inspect.signature(function)
    parameters = [name for name in signature.parameters if name not in ("self", "cls")]
    documented = text.partition("Args:")[2].partition("\n\n")[0]
    for name in parameters:
        assert f"{name.removeprefix('*')}:" in documented, f"{name} is not documented"
    if signature.return_annotation not in (None, "None", inspect.Signature.empty):
        is_iterator = "Iterator" in str(signature.return_annotation)
        is_context = hasattr(function, "__wrapped__")
        assert "Returns:" in text or (is_iterator and "Yields:" in text) or is_context
    assert "Example:" in text


def test_public_names_are_importable_and_documented() -> None:
    for name in optimum_sleb.__all__:
        assert inspect.getdoc(getattr(optimum_sleb, name))
    assert [name for name, value in PROPERTIES.items() if not inspect.getdoc(value)] == []
    assert dir(optimum_sleb) == optimum_sleb.__all__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        optimum_sleb.nothing  # noqa: B018


def documented_in_full() -> set[tuple[Path, str]]:
    """The places of exported classes and functions, which the rules for the others do not concern."""
    values = [value for _, value in exported()]
    functions = [getattr(value, "fget", None) or getattr(value, "func", None) or value for value in values]
    return {
        (Path(inspect.getfile(inspect.unwrap(value))), value.__qualname__)
        for value in functions
        if inspect.isclass(value) or inspect.isfunction(value)
    }


def nodes(tree: Documented, prefix: str = "") -> Iterator[tuple[str, Documented]]:
    """A module and all that is defined in it, by qualified name."""
    yield prefix.rstrip("."), tree
    inside = f"{prefix}<locals>." if isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef) else prefix
    for node in definitions(tree):
        yield from nodes(node, f"{inside}{node.name}.")


def definitions(tree: ast.AST) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        else:
            yield from definitions(node)


def faults(tree: ast.Module, in_full: set[str]) -> Iterator[str]:
    for name, node in nodes(tree):
        text = ast.get_docstring(node) or ""
        lines = [line for line in text.splitlines() if line.strip()]
        if name in in_full:
            continue
        if len(lines) > MOST_LINES and ">>>" not in text:
            yield f"{name or 'the module'}: {len(lines)} lines"
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if is_function and text.split(" ")[0].rstrip(",.:") in QUESTIONS:
            yield f"{name}: {lines[0]}"


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_docstrings_within_are_short_and_say_what_is_done(file: Path) -> None:
    in_full = {name for place, name in documented_in_full() if place == file}
    assert list(faults(ast.parse(file.read_text(encoding="utf-8")), in_full)) == []


def test_such_faults_are_found() -> None:
    source = '''
    """One.

    Two.
    Three.
    """
    class Long:
        """One.

        Two.
        Three.
        Four.
        """
        def asks(self):
            """Whether it is so."""
            def inner():
                """Whatever it is."""
        def exported(self):
            """How it is.

            Two.
            Three.
            Four.
            """
    if True:
        def example():
            """One.

            >>> 1
            1
            >>> 2
            2
            """
    '''
    found = list(faults(ast.parse(inspect.cleandoc(source)), {"Long.exported"}))
    assert found == ["Long: 4 lines", "Long.asks: Whether it is so."]
