"""Take the pictures of docs/space.md: the page when it is empty, while it searches and when it is done, at two widths.

    PYTHONPATH=. .venv-space/bin/python -m tests.space.take_screenshots MODEL_FOLDER
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from ..conftest import ROOT
from .conftest import CHROMIUM, serving
from .visitor import Visitor

SIZES = {1440: 1080, 390: 844}


def take(browser: Any, url: str, width: int, model: str) -> None:
    """Take the three pictures at one width."""
    visitor = Visitor(browser, url, width, SIZES[width])
    visitor.page.set_default_timeout(1_800_000)

    def shoot(state: str, *, whole: bool = False) -> None:
        visitor.page.wait_for_timeout(1500)  # for what moves
        path = ROOT / "docs" / "images" / f"space-{state}-{width}.png"
        visitor.page.screenshot(path=path, full_page=whole)

    shoot("empty")
    visitor.write("model", model)
    visitor.press("prune")
    visitor.page.wait_for_selector("#chart .sleb-plot .sleb-dot >> nth=2")
    shoot("running")
    visitor.wait_for_result()
    visitor.go_to_depth(4)
    if width < 800:
        visitor.page.locator("#shown").evaluate("one => one.scrollIntoView()")
    shoot("done", whole=width > 800)
    visitor.close()


if __name__ == "__main__":
    model = str(Path(sys.argv[1]).resolve())
    here = tempfile.TemporaryDirectory()
    with here as folder, serving(Path(folder), SLEB_SPACE_FOLDERS="1") as page, sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width in SIZES:
            take(opened, page.url, width, model)
