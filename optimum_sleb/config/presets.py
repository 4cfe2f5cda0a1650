"""Recipes by name: the fields in which each differs from the defaults."""

from typing import Any

# The defaults are the published procedure. What "best" changes was measured: docs/quality.md.
PRESETS: dict[str, dict[str, Any]] = {
    "published": {},
    "best": {
        "dataset": "wikitext2+c4",
        "criterion": "kl",
        "search_space": "runs",
        "search": "auto",
        "compensate": "every-block",
    },
}
