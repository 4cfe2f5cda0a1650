"""Reports of a search over sets, made by hand: the best set of a depth need not contain that of the depth before."""

from dataclasses import replace

from optimum_sleb import PruningReport
from optimum_sleb.report.depths import DepthRecord, SetRecord
from optimum_sleb.report.records import StepRecord

from .test_report import make_report

BEST = ((5,), (2, 3), (3, 4, 5))


def make_set_report(previous: PruningReport | None = None, best: tuple[tuple[int, ...], ...] = BEST) -> PruningReport:
    """Three depths, each with its best set and two others, of blocks that are left; the last is compensated."""
    report = make_report(best[-1], previous=previous)
    return replace(report, depths=depths_of(best, report.blocks_before), steps=tuple(map(StepRecord, best[-1])))


def depths_of(best: tuple[tuple[int, ...], ...], blocks: tuple[int, ...]) -> tuple[DepthRecord, ...]:
    depths = []
    for size, removed in enumerate(best, start=1):
        others = [blocks[start : start + size] for start in range(1, len(blocks)) if blocks[start:][size - 1 :]]
        others = [other for other in others if other != removed][:2]
        losses = [84.0 + size, 90.0 + size, 95.0 + size]
        sets = tuple(SetRecord(*one) for one in zip([removed, *others], losses, strict=True))
        depths.append(DepthRecord(removed, sets, seconds=0.5, num_dropped=size))
    return tuple(depths)
