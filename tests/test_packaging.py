"""What a stranger gets from the wheel."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_wheel_holds_what_must_travel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "optimum_sleb/py.typed",
        "optimum_sleb/model_card_template.md",
        "optimum/commands/register/register_sleb.py",
    } <= names
    # `optimum` is a namespace package: an __init__.py of ours would hide everyone else's.
    assert not {name for name in names if name.startswith("optimum/") and name.endswith("__init__.py")}


def test_card_is_rendered_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
        "import optimum_sleb.hub.card as card\n"
        f"assert card.__file__.startswith({str(tmp_path)!r})\n"
        "from tests.test_report import make_report\n"
        "print(card.render_card(make_report(), 'me/small').content)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "# small" in done.stdout
