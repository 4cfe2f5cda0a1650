"""The card in the docs is the card that the program writes today."""

import runpy
from pathlib import Path

from matplotlib.image import imread

from optimum_sleb import PruningReport
from optimum_sleb.card.loss_plot import draw_losses

from .conftest import ROOT

DOCS = ROOT / "docs"


def test_model_card_page() -> None:
    page = runpy.run_path(str(DOCS / "write_model_card.py"))["page"]
    written = (DOCS / "model-card.md").read_text(encoding="utf-8")
    assert written == page(PruningReport.load(DOCS)), "run docs/write_model_card.py again"


def test_the_picture_is_of_this_report(tmp_path: Path) -> None:
    draw_losses(PruningReport.load(DOCS), tmp_path / "loss.png")
    drawn, shown = imread(tmp_path / "loss.png"), imread(DOCS / "sleb_loss.png")
    # Another version of matplotlib may set a letter a pixel further.
    assert drawn.shape == shown.shape
    assert abs(drawn - shown).mean() < 0.01
