"""Take the pictures of docs/space.md: the page when it is empty, while it searches and when it is done, at two widths.

PYTHONPATH=. .venv-space/bin/python -m tests.space.take_screenshots MODEL_FOLDER
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from ..conftest import ROOT
from .conftest import CHROMIUM, serving
from .visitor import FURTHER, Visitor

SIZES = {1440: 1080, 390: 844}


def take(browser: Any, url: str, model: str) -> None:
    """Take the pictures of one search, each at every width."""
    visitor = Visitor(browser, url)
    visitor.page.set_default_timeout(1_800_000)

    def shoot(state: str) -> None:
        for width, height in SIZES.items():
            visitor.page.set_viewport_size({"width": width, "height": height})
            is_narrow = width < 800
            if is_narrow and state != "empty":  # where pressing a button leads on a telephone
                visitor.page.locator("#shown").evaluate("one => one.scrollIntoView()")
            visitor.page.wait_for_timeout(1000)  # for what moves
            path = ROOT / "docs" / "images" / f"space-{state}-{width}.png"
            visitor.page.screenshot(path=path, full_page=not is_narrow)

    shoot("empty")
    visitor.write("model", model)
    visitor.open(FURTHER)
    visitor.write("length", "64")
    visitor.write("windows", "2")
    visitor.open(FURTHER)
    visitor.press("prune")
    visitor.page.wait_for_selector("#chart .sleb-plot .sleb-dot >> nth=3")
    shoot("running")
    visitor.wait_for_result()
    visitor.go_to_depth(4)
    shoot("done")
    visitor.close()


if __name__ == "__main__":
    from playwright.sync_api import sync_playwright  # not where the tests are collected, maybe without a browser

    model = str(Path(sys.argv[1]).resolve())
    here = tempfile.TemporaryDirectory()
    with here as folder, serving(Path(folder), SLEB_SPACE_FOLDERS="1") as page, sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        take(opened, page.url, model)
