"""The card in the docs is the card that the program writes today."""

import runpy

from optimum_sleb import PruningReport
from optimum_sleb.hub.plot import draw_losses

from .conftest import ROOT

DOCS = ROOT / "docs"


def test_model_card_page() -> None:
    page = runpy.run_path(str(DOCS / "write_model_card.py"))["page"]
    written = (DOCS / "model-card.md").read_text(encoding="utf-8")
    assert written == page(PruningReport.load(DOCS)), "run docs/write_model_card.py again"


def test_the_picture_is_of_this_report(tmp_path) -> None:
    draw_losses(PruningReport.load(DOCS), tmp_path / "loss.png")
    drawn = (tmp_path / "loss.png").read_bytes()
    assert abs(len(drawn) - (DOCS / "sleb_loss.png").stat().st_size) < 0.1 * len(drawn)
