"""A visitor of the page, in words of the page."""

from pathlib import Path
from typing import Any

# A tiny model takes seconds; the machine may be busy.
PATIENCE = 120_000  # milliseconds
FURTHER = "A text file, and how much is read of it"


class Visitor:
    def __init__(self, browser: Any, url: str, width: int = 1440, height: int = 900) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.page.set_default_timeout(PATIENCE)
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(url)
        self.page.wait_for_selector("#check:enabled")

    def upload(self, archive: Path) -> None:
        if not self.page.locator("#archive").is_visible():
            self.page.click("#upload-model button")
        self.page.set_input_files("#archive input[type=file]", archive)
        self.page.wait_for_selector(f"#archive >> text={archive.stem}")

    def write(self, where: str, text: str) -> None:
        self.page.locator(f"#{where} textarea, #{where} input").first.fill(text)

    def choose(self, label: str) -> None:
        self.page.get_by_label(label, exact=False).first.check()

    def open(self, label: str) -> None:
        self.page.get_by_role("button", name=label).click()

    def remove(self, number: int, length: int = 40, windows: int = 8) -> None:
        """Ask for a number of blocks, with short windows."""
        self.choose("Number")
        self.write("number", str(number))
        if not self.page.locator("#length").is_visible():
            self.open(FURTHER)
        self.write("length", str(length))
        self.write("windows", str(windows))

    def press(self, button: str) -> None:
        self.page.click(f"#{button}:enabled")

    def message(self) -> str:
        """What the page says when the work is over."""
        return self.page.locator("#message .sleb-message").inner_text()

    def wait_for_result(self) -> None:
        self.page.wait_for_selector("#result", state="visible")
        self.page.wait_for_selector("#prune:enabled")

    def go_to_depth(self, depth: int) -> None:
        self.write("depth", str(depth))
        self.page.locator("#depth input").first.press("Enter")
        self.page.wait_for_function(
            "depth => document.querySelectorAll('#strip .sleb-strip .sleb-gone').length == depth", arg=depth
        )

    def gone(self) -> set[int]:
        return {int(text) for text in self.page.locator("#strip .sleb-strip .sleb-gone").all_inner_texts()}

    def number(self, name: str) -> str:
        return self.page.locator(f".sleb-number:has(span:text-is('{name}')) b").inner_text()

    def close(self) -> None:
        assert self.errors == []
        self.page.close()
