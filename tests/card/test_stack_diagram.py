from dataclasses import replace

from optimum_sleb import SLEBConfig
from optimum_sleb.card.stack_diagram import stack_diagram
from optimum_sleb.report.records import StepRecord

from ..report.sets import make_set_report
from ..report.test_report import make_report


def test_ten_blocks_a_line() -> None:
    steps = (StepRecord(5), StepRecord(4), StepRecord(11))
    report = replace(make_report(), original_num_blocks=12, blocks_before=tuple(range(12)), steps=steps)
    assert stack_diagram(report) == " 0   ■  ■  ■  ■  2  1  ■  ■  ■  ■\n10   ■  3"


def test_over_two_runs_and_with_two_digits() -> None:
    steps = tuple(StepRecord(block) for block in range(10, 20))
    first = replace(make_report(), original_num_blocks=30, blocks_before=tuple(range(30)), steps=steps)
    report = replace(first, blocks_before=first.blocks_after, steps=(StepRecord(1),), previous=first)
    assert stack_diagram(report).splitlines()[:2] == [
        " 0    ■  11   ■   ■   ■   ■   ■   ■   ■   ■",
        "10    1   2   3   4   5   6   7   8   9  10",
    ]


def test_a_set_has_no_order() -> None:
    report = make_set_report(previous=make_report((7, 2)), best=((5,), (1, 3), (3, 4, 5)))
    assert stack_diagram(report) == "0   ■  ■  2  □  □  □  ■  1"


def test_protected_blocks_are_hatched() -> None:
    recipe = SLEBConfig(num_blocks_to_remove=3, protected_blocks="0,3")
    report = replace(make_report(), recipe=recipe)
    diagram = stack_diagram(report)
    assert diagram.count("▨") == 2
    assert diagram.replace("▨", "■") == stack_diagram(make_report())


def test_all_but_the_candidates_are_hatched() -> None:
    report = make_report()
    recipe = SLEBConfig(num_blocks_to_remove=3, candidate_blocks=report.removed_blocks)
    kept = report.original_num_blocks - len(report.removed_blocks)
    assert stack_diagram(replace(report, recipe=recipe)).count("▨") == kept
