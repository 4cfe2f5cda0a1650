"""Strange files where a healing goes on: its run, what the teacher wrote, answers of the dense model."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from optimum_sleb import heal

from ..families import tiny_model
from .harness import assert_refused, call

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.long]

IDS = torch.randint(3, 64, (8, 24), generator=torch.Generator().manual_seed(1))
SETTINGS: dict[str, Any] = {"steps": 2, "batch_size": 2, "window_length": 24, "disable_tqdm": True}
DAMAGE: dict[str, bytes | None] = {
    "empty": b"",
    "no JSON": b"{",
    "not UTF-8": b"\xff\xfe{}",
    "a list": b"[]",
    "a number": b"1e999",
    "deeply nested": b"[" * 100_000,
    "other keys": b'{"a": 1}',
    "a pickle": b"\x80\x04cos\nsystem\n",
    "a folder": None,
}


def damage(file: Path, content: bytes | None) -> None:
    if content is None:
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(content)


@pytest.fixture(scope="module")
def healed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A healing that is finished, whose folders each case gets a copy of."""
    place = tmp_path_factory.mktemp("healed")
    assert go_on(place).code == 0
    return place


def go_on(place: Path) -> Any:
    more = {"teacher": tiny_model(seed=1), "cache_teacher": place / "teacher", "self_data": 4}
    run = {"output_dir": place / "run", "resume": True}
    return call(lambda: heal(tiny_model(), method="distill", data=IDS, **more, **run, **SETTINGS))


@pytest.mark.parametrize(
    "name",
    [
        "run/healing.json",
        "teacher/pass.json",
        "teacher/rows-00000.safetensors",
        "run/self-data/parts/pass.json",
        "run/self-data/rows/state.json",
    ],
)
@pytest.mark.parametrize("how", DAMAGE)
def test_damaged(how: str, name: str, healed: Path, tmp_path: Path) -> None:
    shutil.copytree(healed, tmp_path / "place")
    shutil.rmtree(tmp_path / "place" / "run" / "checkpoint-2")  # else nothing is left to train
    damage(tmp_path / "place" / name, DAMAGE[how])
    assert_refused(go_on(tmp_path / "place"), Path(name).parts[0])


@pytest.mark.parametrize("how", DAMAGE)
def test_a_checkpoint_that_is_not_whole(how: str, healed: Path, tmp_path: Path) -> None:
    """It is removed, and the one before it goes on."""
    shutil.copytree(healed, tmp_path / "place")
    damage(tmp_path / "place" / "run" / "checkpoint-2" / "healing_checkpoint.json", DAMAGE[how])
    assert go_on(tmp_path / "place").code == 0
