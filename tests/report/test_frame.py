"""The table of a report holds what the report holds, cell by cell."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from optimum_sleb import PruningReport
from optimum_sleb.report.records import StepRecord

from .test_report import make_report


def slowly(report: PruningReport) -> list[dict[str, object]]:
    """Row after row, by looking everything up."""
    rows, depth = [], 0
    for number, run in enumerate(report.runs, start=1):
        for step in run.steps:
            depth += 1
            for block in range(report.original_num_blocks):
                loss = step.candidate_losses.get(block)
                if block == step.block:
                    status = "removed"
                elif block in step.barred_blocks:
                    status = "barred"
                elif block in step.dropped_blocks:
                    status = "dropped"
                elif block in step.non_finite_blocks:
                    status = "non_finite"
                elif loss is not None:
                    status = "kept"
                else:
                    continue
                row = {"run": number, "step": depth, "block": block, "status": status, "loss": loss}
                rows.append(row | {"perplexity": None if loss is None else math.exp(loss / 40)})
    return rows


def full_report() -> PruningReport:
    """Two runs, with every fate that a candidate can have."""
    report = make_report((5, 3), previous=make_report((2, 4)))
    first, second = report.steps
    first = replace(first, barred_blocks={1: "it stays"}, candidate_losses={1: 80.0, 3: 99.0, 5: 90.0})
    second = replace(second, dropped_blocks={1: 1}, non_finite_blocks={6: 0}, candidate_losses={3: 95.0})
    return replace(report, steps=(replace(first, compensated_loss=85.0), second))


def test_every_cell_is_that_of_the_report() -> None:
    table = full_report().to_pandas()
    expected = slowly(full_report())
    assert table.columns.tolist()[:6] == ["run", "step", "block", "status", "loss", "perplexity"]
    found = table[list(expected[0])].astype(object).where(table[list(expected[0])].notna(), None).to_dict("records")
    assert found == expected
    assert set(table.status) == {"removed", "kept", "barred", "dropped", "non_finite"}


def test_windows_compensation_and_reasons() -> None:
    table = full_report().to_pandas().set_index(["step", "block"])
    assert table.windows[4, 1] == 1
    assert table.windows[4, 6] == 0
    assert table.windows[4, 3] == 2
    assert table.compensated_loss[3, 5] == 85.0
    assert math.isnan(table.compensated_loss[3, 3])
    assert table.reason[3, 1] == "it stays"
    assert table.reason.isna().sum() == len(table) - 1


def test_the_removed_rows_are_the_curve() -> None:
    report = make_report()
    removed = report.to_pandas().query("status == 'removed'")
    assert removed.block.tolist() == list(report.removed_blocks)
    assert removed.perplexity.tolist()[-1] == report.perplexity_after


def test_without_a_search() -> None:
    by_order = replace(make_report(), steps=(StepRecord(2), StepRecord(5)), search=None, calibration=None, recipe=None)
    table = by_order.to_pandas()
    assert table.status.tolist() == ["removed", "removed"]
    assert table.loss.isna().all()
    assert table.windows.isna().all()
    empty = replace(make_report(), steps=()).to_pandas()
    assert len(empty) == 0
    assert empty.dtypes.tolist() == table.dtypes.tolist()
    assert isinstance(empty, pd.DataFrame)


def test_plot_is_the_picture_of_the_card() -> None:
    report = make_report()
    (axes,) = report.plot().axes
    curve = next(line for line in axes.lines if line.get_label() == "the model")
    removed = report.to_pandas().query("status == 'removed'")
    assert curve.get_xdata().tolist() == [0, 1, 2, 3]
    assert curve.get_ydata().tolist() == pytest.approx([report.perplexity_before, *removed.perplexity])
