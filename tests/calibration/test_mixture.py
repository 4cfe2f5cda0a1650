"""Mixtures of calibration texts give each part its share."""

from pathlib import Path

import pytest

from optimum_sleb import CalibrationError, SLEBConfig
from optimum_sleb.calibration.mixture import split_mixture, windows_per_part
from optimum_sleb.calibration.sources import load_calibration

from ..conftest import make_text


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.txt" for name in ("long", "short", "other")]
    for seed, (path, num_words) in enumerate(zip(paths, (90, 25, 60), strict=True)):
        path.write_text(make_text(num_words, seed=seed))
    return paths


def windows_of(dataset: str, tokenizer, max_windows: int | None) -> list[list[int]]:
    config = SLEBConfig(sparsity=0.2, window_length=10, dataset=dataset, max_windows=max_windows)
    return [window.tolist() for window in load_calibration(None, tokenizer, config).windows.windows]


@pytest.mark.parametrize(("max_windows", "shares"), [(6, (2, 2, 2)), (8, (3, 2, 2)), (None, (9, 2, 6))])
def test_a_mixture_is_its_parts_one_behind_the_other(max_windows, shares, files: list[Path], tokenizer) -> None:
    apart = [windows_of(str(path), tokenizer, share) for path, share in zip(files, shares, strict=True)]
    assert [len(windows) for windows in apart] == list(shares)
    assert windows_of("+".join(map(str, files)), tokenizer, max_windows) == [
        window for windows in apart for window in windows
    ]


def test_the_source_is_the_mixture(files: list[Path], bos_tokenizer) -> None:
    dataset = f"{files[0]}+{files[2]}"
    config = SLEBConfig(sparsity=0.2, window_length=10, dataset=dataset)
    loaded = load_calibration(None, bos_tokenizer, config)
    assert loaded.source == dataset
    assert loaded.bos_per_window
    assert all(window[0] == 1 for window in loaded.windows.windows)


def test_a_file_with_a_plus_in_its_name_is_no_mixture(files: list[Path]) -> None:
    odd = files[0].rename(files[0].with_name("c4+c++.txt"))
    assert split_mixture(str(odd)) == [str(odd)]


def test_refusals(files: list[Path], tokenizer) -> None:
    with pytest.raises(CalibrationError, match="max_windows=1 is too few for a mixture of 2 texts"):
        windows_per_part(1, 2)
    with pytest.raises(CalibrationError, match="'nothing' is neither a known data set"):
        windows_of(f"{files[0]}+nothing", tokenizer, 4)
