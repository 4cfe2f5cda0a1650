"""The picture of the losses of a search, for the card."""

from pathlib import Path

from ..report.plot_style import save_png
from ..report.report import PruningReport


def draw_losses(report: PruningReport, path: Path) -> None:
    """Write the plot of a report into a PNG."""
    save_png(report.plot(), path)
