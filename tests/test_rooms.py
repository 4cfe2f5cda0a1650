"""The rooms of the package stand on each other as the table in CONTRIBUTING.md says, and modules form no circle."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

from .conftest import ROOT

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def rooms_in(page: str) -> dict[str, set[str]]:
    """Each room of the table, and the rooms that it may import: what it stands on, what those stand on, and so on."""
    allowed: dict[str, set[str]] = {}
    for row in re.findall(r"^\| (`.*) \|$", page.partition("## The rooms")[2].partition("\n## ")[0], re.MULTILINE):
        names, _, ground = (re.findall(r"`(\w+)`", cell) for cell in row.split("|"))
        above = set(ground) - allowed.keys()
        assert not above, f"{names} stand on {above}, which no row above names"
        rooms_below = set(ground).union(*(allowed[name] for name in ground))
        allowed |= dict.fromkeys(names, rooms_below)
    return allowed


def modules_of(package: Path) -> dict[str, Path]:
    """The files of a package by the dotted names of their modules."""
    files = {path.relative_to(package.parent).with_suffix(""): path for path in package.rglob("*.py")}
    return {".".join(name.parts).removesuffix(".__init__"): path for name, path in files.items()}


def room_of(module: str) -> str:
    return [*module.split("."), "__init__"][1]


def imports_of(module: str, modules: dict[str, Path]) -> Iterator[tuple[int, str]]:
    """Line and target of all imports from the same package, also those in functions and for types only."""
    path = modules[module]
    parent = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), parent)
            names = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            # What is imported may be a module or something in one.
            target = next((known for known in (name, name.rpartition(".")[0]) if known in modules), None)
            if target is not None:
                yield node.lineno, target


def faults(package: Path, page: str) -> list[str]:
    """What is not as the table says, in words."""
    allowed, modules = rooms_in(page), modules_of(package)
    rooms = {room_of(module) for module in modules}
    found = [f"{room} is not in the table" for room in sorted(rooms - allowed.keys())]
    found += [f"{room} is only in the table" for room in sorted(allowed.keys() - rooms)]
    graph: dict[str, set[str]] = {}
    for module, path in sorted(modules.items()):
        room = room_of(module)
        for line, target in imports_of(module, modules):
            graph.setdefault(module, set()).add(target)
            if room_of(target) not in {room} | allowed.get(room, set()):
                found.append(f"{path.relative_to(package)}:{line} imports {target}, but {room} does not stand on it")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append("circle: " + " <- ".join(error.args[1]))
    return found


def test_every_import_is_as_the_table_says() -> None:
    assert faults(ROOT / "optimum_sleb", CONTRIBUTING) == []


PAGE = """
## The rooms

| room | what belongs there | stands on |
|---|---|---|
| `ground` | what all use, such as `top` | |
| `left`, `right` | neighbours | `ground` |
| `top` | the rest | `left` |
| `__init__` | the way in | `top`, `right` |

## Another section

| `other` | table | `nowhere` |
"""
HOUSE = {
    "__init__.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .top import Top\n",
    "ground.py": "import os\n",
    "left/__init__.py": "",
    "left/a.py": "from ..ground import os\n",
    "left/b.py": "from . import a\n",
    "right.py": "import house.ground\n",
    "top.py": "from .ground import os\nfrom .left.b import a\n\nclass Top: ...\n",
}


def build(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "house"


def test_a_house_in_order(tmp_path: Path) -> None:
    assert faults(build(tmp_path, HOUSE), PAGE) == []


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("ground.py", "from .top import Top", "ground.py:1 imports house.top, but ground does not stand on it"),
        ("ground.py", "def f():\n  import house.right", "ground.py:2 imports house.right, but ground does"),
        ("left/c.py", "if TYPE_CHECKING:\n  from ..top import T", "left/c.py:2 imports house.top, but left does not"),
        ("left/c.py", "from .. import right", "left/c.py:1 imports house.right, but left does not stand on it"),
        ("top.py", "from house.right import os", "top.py:1 imports house.right, but top does not stand on it"),
        ("top.py", "from . import Top", "top.py:1 imports house, but top does not stand on it"),
        ("left/a.py", "def f():\n  from .b import a", "circle: house.left."),
        ("attic.py", "", "attic is not in the table"),
    ],
)
def test_a_fault_is_found(tmp_path: Path, name: str, text: str, fault: str) -> None:
    found = faults(build(tmp_path, HOUSE | {name: text}), PAGE)
    assert found
    assert found[0].startswith(fault)


def test_a_room_that_is_gone_is_found(tmp_path: Path) -> None:
    files = {name: text for name, text in HOUSE.items() if name != "right.py"}
    assert faults(build(tmp_path, files), PAGE) == ["right is only in the table"]


def test_a_table_in_a_wrong_order_is_refused() -> None:
    with pytest.raises(AssertionError, match="no row above names"):
        rooms_in(PAGE.replace("such as `top` | |", "such as `top` | `top` |"))
