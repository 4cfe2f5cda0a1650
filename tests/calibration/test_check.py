"""A look at the data before a model is loaded, which no slip gets past and which takes no time."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from optimum_sleb import CalibrationError, SLEBConfig
from optimum_sleb.calibration.check import check_data

from ..conftest import ROOT


def recipe(dataset: object, **fields) -> SLEBConfig:
    return SLEBConfig(sparsity=0.2, dataset=str(dataset), **fields)


def test_every_part_is_looked_at(tmp_path: Path, text_file: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"body": "w3"}\n{"body": \n')
    check_data(recipe(f"wikitext2+c4+{text_file}"))
    with pytest.raises(CalibrationError, match="is neither a known data set"):
        check_data(recipe(f"{text_file}+{tmp_path / 'rosw.jsonl'}"))
    with pytest.raises(CalibrationError, match=r"rows.jsonl cannot be read as json from row 0 on"):
        check_data(recipe(tmp_path / "rows.jsonl"))
    (tmp_path / "rows.jsonl").write_text('{"body": "w3"}\n')
    with pytest.raises(CalibrationError, match="Row 0 of .*rows.jsonl has no field 'text', only 'body'"):
        check_data(recipe(f"{text_file}+{tmp_path / 'rows.jsonl'}"))
    check_data(recipe(tmp_path / "rows.jsonl", text_column="body"))
    with pytest.raises(CalibrationError, match="max_windows=1 is too few"):
        check_data(recipe("wikitext2+c4", max_windows=1))


@pytest.mark.parametrize("columns", ['"input_ids": [3, 4]', '"messages": []', '"prompt": "w3", "completion": "w4"'])
def test_other_columns_than_text(columns: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(f"{{{columns}}}\n")
    check_data(recipe(tmp_path / "rows.jsonl"))


@pytest.mark.long
def test_a_slip_is_found_without_torch_and_in_time(tmp_path: Path) -> None:
    code = (
        "import sys, optimum_sleb.calibration.check as check; from optimum_sleb.config import SLEBConfig\n"
        "try: check.check_data(SLEBConfig(sparsity=0.2, dataset='misspelt.jsonl'))\n"
        "except Exception as error: print(error, sorted({'torch', 'datasets', 'transformers'} & {*sys.modules}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (
        found.stdout
        == "'misspelt.jsonl' is neither a known data set (wikitext2, c4) nor a file; name one that exists. []\n"
    ), found.stderr
    command = [sys.executable, "-m", "optimum.commands.optimum_cli", "sleb", "prune", "--model", tmp_path / "huge"]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(
        [*command, "--num-blocks", "1", "--output", tmp_path / "out", "--dataset", "misspelt.jsonl"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.returncode == 2
    assert "'misspelt.jsonl' is neither a known data set" in ended.stderr
    # What the processor did: the clock also shows what else the machine does.
    seconds = now.ru_utime - used.ru_utime + now.ru_stime - used.ru_stime
    assert seconds < 3, f"took {seconds:.1f} s"
