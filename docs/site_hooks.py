"""What mkdocs runs while it builds the site: files outside docs/ that pages link to come along.

On GitHub a page of docs/ links to `../CONTRIBUTING.md`; in the site such a file lies below `repository/`.
"""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
BELOW = "repository/"
TEMPLATE = "model_card_template.md"
# The target of a link or of a picture, without its fragment.
LINK = re.compile(r"(\]\(|(?:src|srcset|href)=\")(?!https?:|mailto:|#|data:)([^)\s\"#]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add every file of the repository that a page leads to, and what these lead to."""
    waiting = [file.src_uri for file in files if file.src_uri.endswith(".md")]
    while waiting:
        source = waiting.pop()
        place = _in_repository(source)
        for target in _targets((ROOT / place).read_text(encoding="utf-8"), place):
            name = _in_site(target)
            if (ROOT / target).is_file() and files.get_file_from_path(name) is None:
                files.append(File.generated(config, name, abs_src_path=str(ROOT / target)))
                waiting += [name] if name.endswith(".md") else []
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let links lead to where the files lie in the site."""
    place = _in_repository(page.file.src_uri)

    def moved(match: re.Match[str]) -> str:
        name = _in_site(_resolve(match[2], place))
        return match[1] + os.path.relpath(name, os.path.dirname(page.file.src_uri) or ".")

    return LINK.sub(moved, markdown)


def _targets(markdown: str, place: str) -> list[str]:
    return [_resolve(match[2], place) for match in LINK.finditer(markdown)]


def _resolve(link: str, place: str) -> str:
    """Return the path in the repository of what a file there links to."""
    return os.path.normpath(os.path.join(os.path.dirname(place), link))


def _in_repository(name: str) -> str:
    return name.removeprefix(BELOW) if name.startswith(BELOW) else f"docs/{name}"


def _in_site(place: str) -> str:
    if place == TEMPLATE:
        return f"{BELOW}{TEMPLATE}.txt"  # it is no page
    return place.removeprefix("docs/") if place.startswith("docs/") else f"{BELOW}{place}"
