"""The files around the package: they can be read by those that they are for, and name what there is."""

import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from optimum_sleb import __version__

from .conftest import ROOT

YAML_FILES = [
    "mkdocs.yml",
    ".pre-commit-config.yaml",
    "CITATION.cff",
    *(str(p.relative_to(ROOT)) for p in ROOT.glob(".github/**/*.yml")),
]


def read(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", YAML_FILES)
def test_yaml_can_be_read(name: str) -> None:
    assert isinstance(read(name), dict)


def test_the_workflow_runs_every_check() -> None:
    job = read(".github/workflows/ci.yml")["jobs"]["make"]
    run = " ".join(job["strategy"]["matrix"]["targets"]).split()
    assert run == ["lint", "types", "docs", "quick", "test", "matrix"]
    assert job["steps"][-1]["run"] == "make ${{ matrix.targets }}"


def test_a_bug_comes_with_what_is_needed() -> None:
    fields = {field["id"]: field for field in read(".github/ISSUE_TEMPLATE/bug_report.yml")["body"]}
    assert {"check", "report", "versions"} <= fields.keys()
    assert "optimum-cli sleb check" in fields["check"]["attributes"]["label"]
    (code,) = re.findall(r'python -c "(.+?)"', fields["versions"]["attributes"]["description"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert f"'optimum-sleb': '{__version__}'" in done.stdout


def test_one_version_everywhere() -> None:
    assert read("CITATION.cff")["version"] == __version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first, second = re.findall(r"^## \[?([^]\s]+)", changelog, re.MULTILINE)[:2]
    assert (first, second) == ("Unreleased", __version__)


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"])
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target


def test_the_source_distribution_holds_them(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", *YAML_FILES} <= names
