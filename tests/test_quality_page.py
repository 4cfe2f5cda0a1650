"""The rows of the quality benchmark, measured on a tiny model, and the page that shows them."""

import argparse
import copy
import importlib
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from optimum_sleb.evaluation import zero_shot

from .conftest import ROOT
from .evaluation.small_data import few_tasks, write_small_data

LENGTH, DEPTH = 20, 2


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module(name)


@pytest.fixture
def quality(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("quality", monkeypatch)


@pytest.fixture
def quality_page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("quality_page", monkeypatch)


@pytest.fixture
def arguments(
    quality: ModuleType, model_folder: Path, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> argparse.Namespace:
    data = write_small_data(tmp_path / "data")
    shutil.copy(data / "wikitext-2-raw" / "wiki.test.raw", data / "wikitext-2-raw" / "wiki.valid.raw")
    shutil.copy(data / "c4" / "sample.jsonl", data / "c4" / "sample_c4-rp1.jsonl")
    places = ["--model", model_folder, "--data-dir", data, "--text", text_file, "--output", tmp_path / "rows.jsonl"]
    amounts = ["--depths", DEPTH, "--window-length", LENGTH, "--windows", 6, "--test-windows", 3, "--limit", 5]
    amounts += ["--c4-windows", 2, "--run-from", 1, "--compile", "never"]
    monkeypatch.setattr(sys, "argv", ["quality.py", *map(str, [*places, *amounts])])
    manager = few_tasks()
    monkeypatch.setattr(zero_shot, "task_manager", lambda: manager)
    return quality.parse_arguments()


@pytest.mark.long
def test_every_row_is_measured_once(quality: ModuleType, quality_page: ModuleType, arguments) -> None:
    arguments.rows = ["dense", "best"]
    assert quality.main(arguments) == 0
    rows = quality.read_lines(arguments.output)
    assert [(row["row"], row["depth"], len(row["blocks"])) for row in rows] == [
        ("dense", 0, 0),
        ("best", DEPTH, DEPTH),
        ("run", DEPTH, DEPTH),
    ]
    assert rows[2]["blocks"] == [1, 2]
    for row in rows:
        assert set(row["perplexity"]) == {"wikitext2", "c4", "text"}
        assert [len(one["right"]) for one in row["zero_shot"].values()] == [5] * 5
        values = [one["value"] for one in row["zero_shot"].values()]
        assert row["zero_shot_mean"]["value"] == pytest.approx(sum(values) / 5)
        for one in row["zero_shot"].values():
            assert one["right"].count("1") / 5 == pytest.approx(one["value"])

    # A second call measures only what is not there: here a row that was cut off in the middle.
    whole = arguments.output.read_text()
    arguments.output.write_text(whole[:-50])
    assert quality.main(arguments) == 0
    again = quality.read_lines(arguments.output)
    assert again[:2] == rows[:2]
    for measured in ("row", "blocks", "perplexity", "zero_shot"):
        assert again[2][measured] == rows[2][measured]
    assert "| 2 | one run, given | none |" in quality_page.figures(again)
    # Other settings are other rows.
    assert quality.is_done(arguments, "dense", 0)
    assert not quality.is_done(argparse.Namespace(**vars(arguments) | {"windows": 7}), "dense", 0)


@pytest.mark.long
def test_a_row_that_fails_does_not_keep_the_others(quality: ModuleType, arguments, capsys) -> None:
    arguments.rows, arguments.run_from, arguments.depths = ["loss"], None, [60, DEPTH]
    assert quality.main(arguments) == 1
    assert [row["depth"] for row in quality.read_lines(arguments.output)] == [DEPTH]
    assert "num_blocks_to_remove=60" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ("loss", {"compensate": "no", "criterion": None}),
        ("loss-gaps", {"compensate": "during", "criterion": None}),
        ("loss-every-block", {"compensate": "every-block", "criterion": None}),
        ("kl-every-block", {"compensate": "every-block", "criterion": "kl"}),
        ("best", {"compensate": "every-block", "criterion": "kl", "search_space": "runs"}),
        ("best-gaps", {"compensate": "after", "criterion": "kl", "search_space": "runs"}),
    ],
)
def test_recipes(quality: ModuleType, arguments, row: str, fields: dict[str, object]) -> None:
    recipe = quality.recipe(row, DEPTH, "a.txt+b.txt", arguments).to_dict()
    assert fields.items() <= recipe.items()
    assert (recipe["num_blocks_to_remove"], recipe["dataset"], recipe["max_windows"]) == (DEPTH, "a.txt+b.txt", 6)


def score(value: float, stderr: float, examples: int) -> dict[str, object]:
    return {"value": value, "stderr": stderr, "examples": examples}


DENSE = {
    "model": "small",
    "row": "dense",
    "depth": 0,
    "settings": {"windows": 96, "window_length": 2048, "limit": 1000, "run_from": None},
    "blocks": [],
    "perplexity": {"wikitext2": score(20.0, 0.1, 148), "c4": score(30.0, 0.1, 100)},
    "zero_shot": {"piqa": score(0.5, 0.2, 4) | {"right": "0101"}},
    "zero_shot_mean": score(0.5, 0.2, 4),
    "made": {"device": "H200", "torch": "2.11", "transformers": "5.17", "date": "2026-12-01"},
}


def pruned(row: str, wikitext: float, c4: float, right: str, blocks: list[int]) -> dict:
    made = copy.deepcopy(DENSE) | {"row": row, "depth": len(blocks), "blocks": blocks, "seconds": 90.0}
    made |= {"weights_bytes": 10**9, "peak_bytes": 3_500_000_000}
    made["perplexity"] = {"wikitext2": score(wikitext, 0.1, 148), "c4": score(c4, 0.1, 100)}
    accuracy = right.count("1") / len(right)
    made["zero_shot"] = {"piqa": score(accuracy, 0.25, 4) | {"right": right}}
    return made | {"zero_shot_mean": score(accuracy, 0.25, 4)}


def test_every_number_is_a_rows(quality_page: ModuleType) -> None:
    best = pruned("best", 28.0, 40.0, "0100", [3, 4])
    lines = quality_page.figures([best, DENSE, pruned("loss", 60.0, 70.0, "0000", [5, 4])]).splitlines()
    assert lines[0] == "### small"
    assert lines[4:7] == [
        "| 0 | dense |  | 20.0 | 30.0 |  | 0.500 ± 0.200 |  |  |  |  |",
        "| 2 | greedy by loss (published) | none | 60.0 | 70.0 |  | 0.000 ± 0.250 "
        "| -0.500 ± 0.289 | 1.5 | 2.5 | 5 4 |",
        "| 2 | sets and runs by KL (**best**) | every kept block | 28.0 | 40.0 | 80% / 75% | 0.250 ± 0.250 "
        "| -0.250 ± 0.250 | 1.5 | 2.5 | 3 4 |",
    ]
    told = " ".join(lines[8:])
    assert "96 windows of 2,048 tokens" in told
    assert "(148 of WikiText-2, 100 of C4)" in told
    assert told.count("H200, torch 2.11, transformers 5.17, 2026-12-01") == 1


def test_models_and_settings_have_tables_of_their_own(quality_page: ModuleType) -> None:
    other = copy.deepcopy(DENSE)
    other["settings"]["windows"] = 48
    text = quality_page.figures([DENSE, copy.deepcopy(DENSE) | {"model": "large"}, other])
    headings = [line for line in text.splitlines() if line.startswith("###")]
    assert headings == ["### small", "### large", "### small, 48 windows"]


def test_a_table_without_a_dense_row_is_compared_with_that_of_the_same_model(quality_page: ModuleType) -> None:
    best = pruned("best", 28.0, 40.0, "0100", [3, 4])
    best["settings"]["windows"] = 240
    text = quality_page.figures([DENSE, best])
    rows = [line for line in text.split("240 windows\n")[1].splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[1] for line in rows[1:]] == ["dense", "sets and runs by KL (**best**)"]
    assert "-0.250 ± 0.250" in rows[2]
    assert "Calibrated on 240 windows" in text


def test_no_row_stands_for_a_dense_one_that_was_not_measured(quality_page: ModuleType) -> None:
    tables = [pruned("best", 28.0, 40.0, "0100", [3, 4]), pruned("loss", 60.0, 70.0, "0000", [5, 4])]
    tables[1]["settings"]["limit"] = 500
    text = quality_page.figures(tables)
    assert text.count("### small") == 2
    assert text.count("greedy by loss (published)") == text.count("(**best**)") == 1


def test_the_headings_name_the_models(quality: ModuleType, quality_page: ModuleType) -> None:
    measured = list(dict.fromkeys(row["model"] for row in quality.read_lines(quality_page.RESULTS)))
    assert set(measured) == set(quality_page.NAMES)
    text = quality_page.figures([copy.deepcopy(DENSE) | {"model": model} for model in measured])
    assert [line for line in text.splitlines() if line.startswith("###")] == [
        "### SmolLM2-135M-Instruct",
        "### Qwen2.5-Coder-0.5B-Instruct",
    ]


def test_the_page_shows_what_was_measured(quality: ModuleType, quality_page: ModuleType) -> None:
    page = quality_page.PAGE.read_text(encoding="utf-8")
    filled = quality_page.filled(page, quality.read_lines(quality_page.RESULTS))
    assert page == filled, "run benchmarks/quality_page.py again"


def test_only_the_figures_of_a_page_change(quality_page: ModuleType) -> None:
    page = f"# Quality\n\n{quality_page.FIRST}\nold\n\n{quality_page.LAST}\nThe rest.\n"
    filled = quality_page.filled(page, [DENSE])
    assert filled.startswith("# Quality\n\n")
    assert filled.endswith("\nThe rest.\n")
    assert "old" not in filled
    assert quality_page.filled(filled, [DENSE]) == filled
