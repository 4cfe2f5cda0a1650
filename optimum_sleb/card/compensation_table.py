"""The table of a card that shows how each cut was compensated."""

from dataclasses import dataclass

from ..blocks.criterion import KL, metric_of, value_of
from ..report.records import CompensationRecord, CutRecord
from .format import format_number


@dataclass(frozen=True)
class CompensationRow:
    """One gap, in the words of the card."""

    gap: str  # the removed blocks; "none" where a block at no gap was fitted too
    folded_into: str  # the module that took the fitted map, or why none could
    fit: str  # the fit that was kept, of how many tried
    before: str  # perplexity, or divergence, on the held-back windows before compensation
    after: str  # the same after compensation


def compensation_rows(record: CompensationRecord | None, criterion: str | None) -> list[CompensationRow]:
    """Return a row for each fit, from the bottom of the stack up; no rows where nothing was compensated.
    Fits are verified by `criterion`, if it is the divergence from the dense model, else by the cross-entropy."""
    return [] if record is None else [_row(cut, record, _verified_by(criterion)) for cut in record.cuts]


def metric_of_fits(criterion: str | None) -> str:
    """Return what the numbers of the rows are, of a search by `criterion`."""
    return metric_of(_verified_by(criterion))


def _verified_by(criterion: str | None) -> str | None:
    return criterion if criterion == KL else None


def _row(cut: CutRecord, record: CompensationRecord, criterion: str | None) -> CompensationRow:
    counts = {"num_windows": record.num_held_back_windows, "num_counted": record.held_back_tokens}
    fit = f"{cut.kept} (best of {len(cut.tried)})" if cut.kept else f"none of {len(cut.tried)} was better"
    return CompensationRow(
        gap=", ".join(map(str, cut.gap)) or "none",
        folded_into=f"block {cut.block}, {cut.module}" if cut.module else f"nothing: {cut.reason}",
        fit=fit if cut.tried else "",
        before=format_number(value_of(criterion, cut.loss_before, **counts)),
        after=format_number(value_of(criterion, cut.loss_after, **counts)),
    )
