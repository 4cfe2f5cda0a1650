"""The table of a report holds what the report holds, cell by cell."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from optimum_sleb import PruningReport
from optimum_sleb.report.records import StepRecord

from .sets import make_set_report
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


def test_a_row_is_a_depth_and_a_set() -> None:
    report = make_set_report(previous=make_report((7, 2)), best=((5,), (1, 3), (3, 4, 5)))
    table = report.to_pandas()
    assert table.columns.tolist() == [*make_report().to_pandas().columns, "blocks", "held_back_loss"]
    expected = [
        (2, number, one.removed, "removed" if one.removed == depth.removed else "kept", one.loss)
        for number, depth in enumerate(report.depths, start=3)
        for one in depth.sets
    ]
    of_sets = table[table.run == 2]
    assert list(zip(of_sets.run, of_sets.step, of_sets.blocks, of_sets.status, of_sets.loss, strict=True)) == expected
    assert of_sets.block.isna().all()
    assert of_sets.perplexity.tolist() == pytest.approx([report.value_of(loss) for *_, loss in expected])
    assert (of_sets.windows == 2).all()
    # The run before it removed one block after the other, and its rows are what they were.
    greedy = table[table.run == 1]
    before = make_report((7, 2)).to_pandas()
    assert greedy[before.columns].astype(before.dtypes).equals(before)
    assert greedy.query("status == 'removed'").blocks.tolist() == [(7,), (2, 7)]


def test_compensated_sets() -> None:
    report = make_set_report()
    first, *others = report.depths[0].sets
    sets = (replace(first, held_back_loss=30.0), *others)
    depth = replace(report.depths[0], sets=sets, compensated_loss=81.0)
    table = replace(report, depths=(depth, *report.depths[1:])).to_pandas()
    assert table.held_back_loss.dropna().tolist() == [30.0]
    assert table.compensated_loss.dropna().tolist() == [81.0]
    assert table[table.compensated_loss.notna()].blocks.tolist() == [(5,)]


def test_plot_is_the_picture_of_the_card() -> None:
    report = make_report()
    (axes,) = report.plot().axes
    curve = next(line for line in axes.lines if line.get_label() == "the model")
    removed = report.to_pandas().query("status == 'removed'")
    assert curve.get_xdata().tolist() == [0, 1, 2, 3]
    assert curve.get_ydata().tolist() == pytest.approx([report.perplexity_before, *removed.perplexity])


def test_plot_of_sets_has_a_point_for_the_best_and_a_dash_for_each_other() -> None:
    report = make_set_report(previous=make_report((7, 2)), best=((5,), (1, 3), (3, 4, 5)))
    last = replace(report.depths[-1], compensated_loss=82.0)
    report = replace(report, depths=(*report.depths[:-1], last))
    (axes,) = report.plot().axes
    curve = next(line for line in axes.lines if line.get_label() == "the model")
    assert curve.get_xdata().tolist() == [2, 3, 4, 5]
    assert curve.get_ydata().tolist() == pytest.approx([report.value_of(loss) for loss in (80.0, 85.0, 86.0, 82.0)])
    dashes = [line for line in axes.lines if line.get_marker() == "_" and len(line.get_xdata())]
    drawn = [(x, y) for line in dashes for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]
    above = sum(int(text.get_text().split()[0]) for text in axes.texts)
    lost = [
        (number, report.value_of(one.loss))
        for number, depth in enumerate(report.depths, start=3)
        for one in depth.sets
        if one.removed != depth.removed
    ]
    assert set(drawn) <= set(lost)
    assert len(drawn) + above == len(lost)


@pytest.mark.parametrize("criterion", ["kl", "m:f"])
def test_plot_of_sets_by_a_criterion(criterion: str) -> None:
    report = make_set_report()
    report = replace(report, search=replace(report.search, criterion=criterion, loss_before=0.0))
    (axes,) = report.plot().axes
    curve = next(line for line in axes.lines if line.get_label() == "the model")
    divisor = 40 if criterion == "kl" else 2
    assert curve.get_ydata().tolist() == pytest.approx([loss / divisor for loss in (0.0, 85.0, 86.0, 87.0)])
    label = " ".join(axes.get_ylabel().split())
    if criterion == "kl":
        assert label == "KL divergence from the dense model on the calibration text, nats a token"
    else:
        assert label == "f on the calibration text"
