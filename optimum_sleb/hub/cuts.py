"""The table of a card that tells how each cut was compensated."""

from dataclasses import dataclass

from ..records import CompensationRecord, CutRecord
from ..units import perplexity_of
from .words import number


@dataclass(frozen=True)
class CutRow:
    """One gap.

    Attributes:
        gap: The blocks that are missing.
        folded_into: The module that took a part of what they did, or why none could.
        fit: The fit that was kept, of how many.
        before: Perplexity on the held-back windows before.
        after: Perplexity afterwards.
    """

    gap: str
    folded_into: str
    fit: str
    before: str
    after: str


def cut_rows(record: CompensationRecord | None) -> list[CutRow]:
    """The table of a card's compensation.

    Args:
        record: How the cuts were compensated, if they were.

    Returns:
        A row for each gap, from the bottom of the stack up.

    Example:
        >>> cut = CutRecord(3, (4, 5), 12.0, 11.0, "scalar, 1/|target|", {"scalar, 1/|target|": 11.0}, "mlp.down_proj")
        >>> cut_rows(CompensationRecord(2, 1, 6, (cut,), 0.1))[0].folded_into
        'block 3, mlp.down_proj'
    """
    return [] if record is None else [_row(cut, record.held_back_tokens) for cut in record.cuts]


def _row(cut: CutRecord, tokens: int) -> CutRow:
    fit = f"{cut.kept} (best of {len(cut.tried)})" if cut.kept else f"none of {len(cut.tried)} was better"
    return CutRow(
        gap=", ".join(map(str, cut.gap)),
        folded_into=f"block {cut.block}, {cut.module}" if cut.module else f"nothing: {cut.reason}",
        fit=fit if cut.tried else "",
        before=number(perplexity_of(cut.loss_before, tokens)),
        after=number(perplexity_of(cut.loss_after, tokens)),
    )
