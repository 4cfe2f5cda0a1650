import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from optimum_sleb import ReportError, SLEBConfig
from optimum_sleb.card.loss_plot import draw_losses
from optimum_sleb.report.records import StepRecord

from ..conftest import ROOT
from ..report.test_report import make_report


def size_of(png: Path) -> tuple[int, int]:
    header = png.read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    return struct.unpack(">II", header[16:24])


def test_draws_a_picture_on_a_white_ground(tmp_path: Path) -> None:
    from matplotlib.image import imread

    draw_losses(make_report(), tmp_path / "loss.png")
    assert size_of(tmp_path / "loss.png") == (1200, 800)  # sharp where it is shown 600 pixels wide
    pixels = imread(tmp_path / "loss.png")
    assert pixels[0, 0].tolist()[:3] == [1, 1, 1]
    assert pixels.shape[2] == 3 or (pixels[..., 3] == 1).all(), "a page in dark mode would shine through"


@pytest.mark.long
def test_protected_blocks_are_marked_below_the_curve(tmp_path: Path) -> None:
    from matplotlib.image import imread

    plain = replace(make_report(), recipe=SLEBConfig(num_blocks_to_remove=3))
    draw_losses(plain, tmp_path / "plain.png")
    pictures = []
    for number, protected in enumerate(("0", "0,3", "0,3,5-7")):
        path = tmp_path / f"{number}.png"
        draw_losses(replace(plain, recipe=SLEBConfig(num_blocks_to_remove=3, protected_blocks=protected)), path)
        assert size_of(path) == (1200, 800)
        # Below the curve: the cells of the blocks, the protected ones darker.
        pictures.append(imread(path)[560:, :, :3].mean())
    assert pictures == sorted(pictures, reverse=True)
    assert len({*pictures}) == 3
    assert abs(imread(tmp_path / "plain.png") - imread(tmp_path / "0.png")).mean() > 0.01


def test_the_same_report_gives_the_same_picture(tmp_path: Path) -> None:
    draw_losses(make_report(), tmp_path / "a.png")
    draw_losses(make_report(), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_hopeless_candidates_and_later_runs(tmp_path: Path) -> None:
    report = make_report((5, 3), previous=make_report((2, 4)))
    steps = tuple(
        replace(step, candidate_losses=step.candidate_losses | {6: 1e9, 7: float("inf")}) for step in report.steps
    )
    draw_losses(replace(report, steps=steps), tmp_path / "loss.png")
    assert size_of(tmp_path / "loss.png") == (1200, 800)


@pytest.mark.parametrize("loss", [-40.0, 0.0, 40.0])
def test_a_criterion_may_be_negative_and_flat(loss: float, tmp_path: Path) -> None:
    report = make_report()
    search = replace(report.search, criterion=f"m:$\\x{'f' * 999}", loss_before=loss)
    steps = tuple(replace(step, candidate_losses=dict.fromkeys(step.candidate_losses, loss)) for step in report.steps)
    draw_losses(replace(report, search=search, steps=steps), tmp_path / "loss.png")
    assert size_of(tmp_path / "loss.png") == (1200, 800)


def test_without_a_search_there_is_nothing_to_draw(tmp_path: Path) -> None:
    by_order = replace(make_report(), steps=(StepRecord(2),), search=None, calibration=None, recipe=None)
    with pytest.raises(ReportError, match="without a search, so there is no curve to draw"):
        draw_losses(by_order, tmp_path / "loss.png")


@pytest.mark.long
def test_needs_no_display_and_leaves_pyplot_alone(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.report.test_report import make_report\n"
        "from optimum_sleb.card.loss_plot import draw_losses\n"
        f"draw_losses(make_report(), Path({str(tmp_path / 'a.png')!r}))\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    environment = {"MPLBACKEND": "TkAgg", "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
