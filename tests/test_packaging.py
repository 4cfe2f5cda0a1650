"""What a stranger gets from the wheel."""

import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.version import Version

from .conftest import ROOT
from .report.test_report import make_report


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


def test_wheel_declares_what_the_card_needs(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(next(name for name in archive.namelist() if name.endswith("METADATA"))).decode()
    for library in ("huggingface-hub", "jinja2", "matplotlib", "pyyaml"):
        assert f"Requires-Dist: {library}>=" in metadata


@pytest.mark.long
def test_card_is_rendered_from_the_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    """In a new environment with the wheel and, to spare minutes, the libraries of this one; not this checkout."""
    python = tmp_path / "environment" / "bin" / "python"
    venv.create(tmp_path / "environment")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel)]
    subprocess.run(pip, check=True)
    (site_packages,) = (tmp_path / "environment").glob("lib/python*/site-packages")
    (site_packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    make_report().save(tmp_path)
    code = (
        "from pathlib import Path; import optimum_sleb; from optimum_sleb.card import card, loss_plot\n"
        f"assert optimum_sleb.__file__.startswith({str(site_packages)!r}), optimum_sleb.__file__\n"
        "report = optimum_sleb.PruningReport.load('sleb_report.json')\n"
        "print(card.render_card(report, 'me/small').content)\n"
        "loss_plot.draw_losses(report, Path('sleb_loss.png'))"
    )
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "# small" in done.stdout
    assert (tmp_path / "sleb_loss.png").is_file()


def test_the_oldest_that_are_allowed_are_those_that_are_run() -> None:
    """`make oldest` against pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    allowed = dict(bound.split(">=") for bound in bounds if ">=" in bound)
    (pins,) = re.findall(r"^OLDEST_PINS := (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    run = dict(pin.split("==") for pin in pins.split())
    assert {name: Version(version) for name, version in run.items()} == {name: Version(allowed[name]) for name in run}
