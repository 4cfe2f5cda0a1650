"""Mixtures of calibration data give each part its share."""

import random
from fractions import Fraction
from pathlib import Path

import datasets
import pytest

from optimum_sleb import CalibrationError, SLEBConfig
from optimum_sleb.calibration.mixture import Part, parts_of, split_mixture, weights_of, windows_per_part
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


def by_turns(count: int, weights: list[Fraction]) -> list[int]:
    """Shares by the largest remainder, the slow way: whole quotas, then one window at a time."""
    quotas = [count * weight / sum(weights) for weight in weights]
    shares = [quota.numerator // quota.denominator for quota in quotas]
    while sum(shares) < count:
        behind = [quota - share for quota, share in zip(quotas, shares, strict=True)]
        shares[behind.index(max(behind))] += 1
    return shares


def test_shares_are_those_of_the_largest_remainders() -> None:
    choose = random.Random(0)
    for _ in range(500):
        weights = [Fraction(str(round(choose.uniform(0.05, 3), 2))) for _ in range(choose.randint(1, 5))]
        count = choose.randint(200, 400)
        assert windows_per_part(count, len(weights), weights) == by_turns(count, weights)


def test_equal_weights_are_none(files: list[Path], tokenizer) -> None:
    for max_windows in range(3, 12):
        assert windows_per_part(max_windows, 3, [Fraction("0.3")] * 3) == windows_per_part(max_windows, 3)
    plain = windows_of(f"{files[0]}+{files[2]}", tokenizer, 8)
    for weights in ("0.5", "1", "7"):
        assert windows_of(f"{files[0]}:{weights}+{files[2]}:{weights}", tokenizer, 8) == plain


@pytest.mark.parametrize(
    ("weights", "shares"), [(("0.75", "0.25"), (6, 2)), (("3", "1"), (6, 2)), (("0.8", "0.2"), (6, 2))]
)
def test_weights(weights, shares, files: list[Path], tokenizer) -> None:
    dataset = f"{files[0]}:{weights[0]}+{files[2]}:{weights[1]}"
    apart = [windows_of(str(path), tokenizer, share) for path, share in zip((files[0], files[2]), shares, strict=True)]
    assert windows_of(dataset, tokenizer, 8) == [*apart[0], *apart[1]]
    config = SLEBConfig(sparsity=0.2, window_length=10, dataset=dataset, max_windows=8)
    assert load_calibration(None, tokenizer, config).source == dataset


def test_names_with_signs_of_a_mixture(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files[0].parent)
    for name in ("a+b.txt", "c:0.5", "c4:1", "d+e:2"):
        Path(name).write_text("w3")
    assert parts_of("a+b.txt:0.25+c4:1+d+e:2:3+c:0.5") == [
        Part("a+b.txt", "0.25"),
        Part("c4:1"),
        Part("d+e:2", "3"),
        Part("c:0.5"),
    ]
    assert parts_of("gone+a+b.txt") == [Part("gone"), Part("a+b.txt")]
    assert parts_of("data/*.jsonl:2+me/chat:0.5") == [Part("data/*.jsonl", "2"), Part("me/chat", "0.5")]


def test_rows_of_every_kind_are_mixed(files: list[Path], tokenizer) -> None:
    """Text, rows of text and rows of token ids, of one recipe."""
    folder = files[0].parent
    datasets.Dataset.from_dict({"text": [make_text(40)]}).to_json(folder / "text.jsonl")
    datasets.Dataset.from_dict({"input_ids": [[5, 6, 7], [8, 9]]}).to_parquet(folder / "ids.parquet")
    names = [str(files[0]), str(folder / "text.jsonl"), str(folder / "ids.parquet")]
    apart = [windows_of(name, tokenizer, 2) for name in names]
    assert windows_of("+".join(names), tokenizer, 6) == [window for windows in apart for window in windows]


def test_a_mixture_of_data_with_labels(tmp_path: Path) -> None:
    rows = {"a": ([[3, 4, 5], [6, 7, 8]], [[-100, 4, 5], [-100, -100, 8]]), "b": ([[9, 10]], [[-100, 10]])}
    for name, (ids, labels) in rows.items():
        datasets.Dataset.from_dict({"input_ids": ids, "labels": labels}).to_parquet(tmp_path / f"{name}.parquet")
    both = f"{tmp_path / 'a.parquet'}+{tmp_path / 'b.parquet'}"
    windows = load_calibration(None, None, SLEBConfig(sparsity=0.2, loss="labels", dataset=both)).windows
    joined = datasets.Dataset.from_dict(
        {"input_ids": rows["a"][0] + rows["b"][0], "labels": rows["a"][1] + rows["b"][1]}
    )
    assert (
        windows.fingerprint
        == load_calibration(joined, None, SLEBConfig(sparsity=0.2, loss="labels")).windows.fingerprint
    )
    (tmp_path / "plain.txt").write_text("w3 w4")
    with pytest.raises(CalibrationError, match="plain.txt carries no labels"):
        load_calibration(
            None, object(), SLEBConfig(sparsity=0.2, loss="labels", dataset=f"{both}+{tmp_path / 'plain.txt'}")
        )


def test_refusals_of_weights(files: list[Path], tokenizer) -> None:
    with pytest.raises(CalibrationError, match="a weight above 0, or none of them; got 'c4:0.5', 'wikitext2'"):
        weights_of(parts_of("c4:0.5+wikitext2"))
    with pytest.raises(CalibrationError, match="share out max_windows windows; give their number"):
        windows_of(f"{files[0]}:1+{files[2]}:1", tokenizer, None)
    with pytest.raises(CalibrationError, match="part 2 of the mixture gets no window; raise its weight"):
        windows_per_part(4, 2, [Fraction(100), Fraction(1)])
    with pytest.raises(
        CalibrationError, match=r"short.txt gives only 2 of the 4 windows .* lower max_windows or its weight"
    ):
        windows_of(f"{files[0]}:1+{files[1]}:1", tokenizer, 8)
