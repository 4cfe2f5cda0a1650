"""A report whose depths are sets: what is read from it is looked up in its depths, one by one."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from optimum_sleb import PruningReport, ReportError
from optimum_sleb.report.depths import DepthRecord, SetRecord, in_words
from optimum_sleb.report.records import StepRecord

from .sets import BEST, make_set_report
from .test_report import make_report


def compensated(report: PruningReport) -> PruningReport:
    """The same, with held-back losses of the first two sets of each depth, by which the second one is better."""
    depths = []
    for depth in report.depths:
        first, second, third = depth.sets
        sets = (replace(first, held_back_loss=30.0), replace(second, held_back_loss=29.0), third)
        depths.append(replace(depth, removed=second.removed, sets=sets, compensated_loss=depth.loss - 3))
    return replace(report, depths=tuple(depths), steps=tuple(map(StepRecord, depths[-1].removed)))


def edited(report: PruningReport, depth: int = -1, **changes: Any) -> PruningReport:
    depths = list(report.depths)
    depths[depth] = replace(depths[depth], **changes)
    return replace(report, depths=tuple(depths))


SOUND = make_set_report()


def test_the_losses_are_those_of_the_best_sets() -> None:
    report = make_set_report()
    assert [depth.loss for depth in report.depths] == [85.0, 86.0, 87.0]
    assert report.perplexity_before == pytest.approx(math.exp(80 / 40))
    assert report.perplexity_after == pytest.approx(math.exp(87 / 40))
    assert report.removed_blocks == BEST[-1]
    assert report.blocks_after == (0, 1, 2, 6, 7)
    last = replace(report.depths[-1], compensated_loss=83.0)
    report = replace(report, depths=(*report.depths[:-1], last))
    assert report.perplexity_after == pytest.approx(math.exp(83 / 40))
    by_another = replace(report, search=replace(report.search, criterion="m:f"))
    assert (by_another.criterion_after, by_another.perplexity_after) == (83 / 2, None)


def test_round_trip() -> None:
    for report in (make_set_report(), compensated(make_set_report(previous=make_report((1,))))):
        assert PruningReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report


@pytest.mark.parametrize("change", [lambda report: report, compensated])
def test_a_cut_holds_the_best_set_of_its_own_depth(change: Any) -> None:
    report = change(make_set_report())
    for number in (1, 2, 3):
        cut = report.cut(number)
        assert cut.removed_blocks == report.depths[number - 1].removed
        assert cut.steps == tuple(map(StepRecord, report.depths[number - 1].removed))
        assert cut.depths == report.depths[:number]
        assert cut.perplexity_after == report.value_of(report.depths[number - 1].final_loss)
        assert cut.blocks_after == tuple(block for block in range(8) if block not in cut.removed_blocks)
        assert PruningReport.from_dict(json.loads(json.dumps(cut.to_dict()))) == cut
        assert cut.cut(number) == cut
    with pytest.raises(ReportError, match="must remove between 1 and 3 blocks; got 4"):
        report.cut(4)


def test_cuts_over_several_runs() -> None:
    greedy_last = make_report((0, 7), previous=make_set_report())
    sets_last = make_set_report(previous=make_report((7, 2)), best=((5,), (1, 3), (3, 4, 5)))
    both = make_set_report(previous=make_set_report(), best=((6,), (1, 2)))
    for report, removed in [
        (greedy_last, [(5,), (2, 3), (3, 4, 5), (3, 4, 5, 0), (3, 4, 5, 0, 7)]),
        (sets_last, [(7,), (7, 2), (7, 2, 5), (7, 2, 1, 3), (7, 2, 3, 4, 5)]),
        (both, [(5,), (2, 3), (3, 4, 5), (3, 4, 5, 6), (3, 4, 5, 1, 2)]),
    ]:
        assert [report.cut(number).removed_blocks for number in range(1, 6)] == removed
        for number in range(1, 6):
            cut = report.cut(number)
            assert PruningReport.from_dict(json.loads(json.dumps(cut.to_dict()))) == cut


def test_the_closest_decision_is_between_the_two_best_sets_of_a_depth() -> None:
    removed, share = make_set_report().closest_decision
    assert (removed, share) == ((3, 4, 5), pytest.approx(93 / 87 - 1))
    # Where sets were compensated, the held-back loss decided, and the best by it need not have the lowest loss.
    report = compensated(make_set_report())
    removed, share = report.closest_decision
    assert (removed, share) == (report.depths[0].removed, pytest.approx(30 / 29 - 1))
    assert "the next best had a held-back loss 3.45% higher" in report.summary()
    assert report.summary().splitlines()[7].endswith("  7.96, compensated")
    alone = [replace(depth, sets=depth.sets[:1]) for depth in make_set_report().depths]
    assert replace(make_set_report(), depths=tuple(alone)).closest_decision is None


def test_summary_of_a_search_over_sets() -> None:
    assert make_set_report().summary().splitlines()[3:] == [
        "calibration perplexity          7.39        8.80",
        "removed: 3 to 5, the best of 6 sets of 3 blocks",
        "depth  best set  sets  perplexity",
        "1      5         4     8.37",
        "2      2 to 3    5     8.58",
        "3      3 to 5    6     8.80",
        "closest decision: the set 3 to 5, the next best had a loss 6.90% higher",
    ]


def test_sets_that_cannot_go_are_told() -> None:
    report = edited(SOUND, depth=1, refused={"1-2": "they share weights", "4,6": "too"}, num_non_finite=2)
    assert PruningReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    assert report.depths[1].num_measured == 9
    lines = report.summary().splitlines()
    assert "the loss was NaN or infinite without each of 2 sets, which thus stayed" in lines
    assert "2 better sets cannot go together, for example 1-2: they share weights" in lines
    barred = report.to_pandas().query("status == 'barred'")
    assert list(zip(barred.step, barred.blocks, barred.reason, strict=True)) == [
        (2, (1, 2), "they share weights"),
        (2, (4, 6), "too"),
    ]
    assert barred.loss.isna().all()


def test_steps_as_a_greedy_search_has_them_stay_as_they_were() -> None:
    report = make_report()
    assert report.depths == ()
    values = report.to_dict()
    del values["depths"]
    del values["search"]["perplexity_before"], values["search"]["perplexity_after"]
    assert PruningReport.from_dict(values) == report, "a report of an earlier version"


SETS = SOUND.depths[-1].sets
LIES = {
    "a depth too few": (replace(SOUND, depths=SOUND.depths[:-1]), "the steps must be bare removals"),
    "a depth too many": (replace(SOUND, depths=(*SOUND.depths, SOUND.depths[-1])), "must be 4 of blocks_before"),
    "no first depth": (replace(SOUND, depths=SOUND.depths[1:]), "must be 1 of blocks_before"),
    "depths in another order": (replace(SOUND, depths=SOUND.depths[::-1]), "must be 1 of blocks_before"),
    "depths without steps": (replace(SOUND, steps=()), "the steps must be bare removals"),
    "other steps": (replace(SOUND, steps=SOUND.steps[::-1]), "the steps must be bare removals"),
    "steps with losses": (
        replace(SOUND, steps=(StepRecord(3, {3: 1.0}), *SOUND.steps[1:])),
        "the steps must be bare removals",
    ),
    "no sets": (edited(SOUND, sets=()), "be among them"),
    "a best set that was not measured": (edited(SOUND, depth=0, removed=(6,)), "be among them"),
    "a set twice": (edited(SOUND, sets=(*SETS, SETS[-1])), "must differ"),
    "sets in another order": (edited(SOUND, sets=SETS[::-1]), "the lowest loss first"),
    "a set of another size": (
        edited(SOUND, sets=(SETS[0], SetRecord((1, 2), 100.0))),
        "must be 3 of blocks_before, ascending; got [1, 2]",
    ),
    "a set of blocks that are not there": (
        edited(SOUND, sets=(SETS[0], SetRecord((1, 2, 8), 100.0))),
        "must be 3 of blocks_before, ascending; got [1, 2, 8]",
    ),
    "a set in another order": (edited(SOUND, sets=(SETS[0], SetRecord((2, 1, 3), 100.0))), "ascending; got [2, 1, 3]"),
    "a block twice": (edited(SOUND, sets=(SETS[0], SetRecord((2, 2, 3), 100.0))), "ascending; got [2, 2, 3]"),
    "a refused set of another size": (edited(SOUND, refused={"1-2": "x"}), "must be 3 of blocks_before"),
    "a refused set that is none": (edited(SOUND, refused={"\x1b[2J": "x"}), "refused of depths[2] must name blocks"),
    "a negative loss": (edited(SOUND, depth=0, sets=(SetRecord((5,), -1.0),)), "must be at least 0; got -1.0"),
    "a negative compensated loss": (edited(SOUND, compensated_loss=-1.0), "must be at least 0; got -1.0"),
}


@pytest.mark.parametrize("lie", LIES)
def test_depths_belong_together(lie: str) -> None:
    report, message = LIES[lie]
    with pytest.raises(ReportError) as error:
        PruningReport.from_dict(json.loads(json.dumps(report.to_dict())))
    assert message in str(error.value)


def test_depths_of_a_run_whose_blocks_went_before() -> None:
    report = make_set_report(previous=make_report((6,)))
    lie = edited(report, sets=(report.depths[-1].sets[0], SetRecord((5, 6, 7), 100.0)))
    with pytest.raises(ReportError, match="must be 3 of blocks_before"):
        PruningReport.from_dict(lie.to_dict())


def test_sets_of_no_loss_and_below() -> None:
    sets = (SetRecord((1,), 0.0), SetRecord((2,), 1.0))
    assert DepthRecord((1,), sets, 0.1).margin is None
    below = DepthRecord((1,), (SetRecord((1,), -2.0), SetRecord((2,), -1.0)), 0.1, num_dropped=3)
    assert (below.margin, below.num_measured) == (0.5, 5)


def test_blocks_in_words() -> None:
    assert in_words((13, 14, 15, 16, 17, 18)) == "13 to 18"
    assert in_words((3,)) == "3"
    assert in_words((1, 3, 4, 9)) == "1, 3 to 4, 9"
