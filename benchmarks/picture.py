"""Draw the picture of the README from recorded numbers: blocks gone, perplexity and speed by depth, light and dark.

python benchmarks/picture.py
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "images"
BLOCKS = 30
# Names of results.json, by the number of blocks that went.
DEPTHS = {0: "dense", 3: "10 %", 6: "20 %", 9: "30 %"}
# What GitHub shows behind a picture, and colours that colour-blind readers can tell apart on it.
LIGHT = {"ink": "#1f2328", "pale": "#59636e", "kept": "#d1d9e0", "published": "#0072B2", "best": "#D55E00"}
DARK = {"ink": "#f0f6fc", "pale": "#9198a1", "kept": "#3d444d", "published": "#56B4E9", "best": "#E69F00"}
ROW, CELL, TOP = 30, 9, 46
STRIP, PERPLEXITY, SPEED, WIDTH = 190, 500, 730, 880
LONGEST = 150  # of a bar of perplexity


@dataclass(frozen=True)
class Row:
    """One model of the picture."""

    name: str
    gone: tuple[int, ...]
    perplexity: float
    speedup: float
    colour: str  # "published" or "best"


def rows(results: dict[str, Any], healed: dict[str, Any], quality: list[dict[str, Any]]) -> list[Row]:
    """The models: dense, published at each depth, the best of each depth that was measured, and the healed one."""
    timed = [one for one in results["speeds"]["smollm2"] if one["scenario"] == "prompt"]
    speedups = {one["name"]: one["before"] / one["after"] for one in timed}
    ours = [row for row in quality if row["row"] == "best" and "smollm2-135m" in row["model"].lower()]
    best = {row["depth"]: row for row in reversed(ours)}  # the first one, where it was measured on more text as well
    drawn = []
    for depth, name in DEPTHS.items():
        model, speedup = results["models"][name], speedups.get(name, 1.0)
        (text,) = [one for one in model["scores"] if one["dataset"] == "wiki.test.raw"]
        title = f"{depth} blocks gone" if depth else "dense"
        drawn.append(Row(title, tuple(model["removed"]), text["after"], speedup, "published"))
        if depth in best:
            found = best[depth]
            text = found["perplexity"]["wikitext2"]
            drawn.append(Row(f"{depth}, best preset", tuple(found["blocks"]), text["value"], speedup, "best"))
        if depth in best and best[depth]["blocks"] == healed["best"]["blocks"]:
            after = healed["full-best"]["wikitext2"]["perplexity"]
            drawn.append(Row(f"{depth}, best, healed", tuple(best[depth]["blocks"]), after, speedup, "best"))
    return drawn


def picture(drawn: list[Row], colours: dict[str, str]) -> str:
    """The picture as SVG."""
    height = TOP + ROW * len(drawn) + 30
    longest = max(row.perplexity for row in drawn)
    parts = [
        _text(STRIP, 24, "decoder blocks of SmolLM2-135M", colours["pale"]),
        _text(PERPLEXITY, 24, "perplexity, WikiText-2", colours["pale"]),
        _text(SPEED, 24, "speed, long prompt", colours["pale"]),
    ]
    for number, row in enumerate(drawn):
        y = TOP + ROW * number
        parts.append(_text(STRIP - 14, y + 14, row.name, colours["ink"], "end"))
        for block in range(BLOCKS):
            colour = colours[row.colour] if block in row.gone else colours["kept"]
            parts.append(_box(STRIP + block * CELL, y + 1, CELL - 2, 17, colour))
        bar = LONGEST * row.perplexity / longest
        parts.append(_box(PERPLEXITY, y + 3, bar, 13, colours[row.colour]))
        parts.append(_text(PERPLEXITY + bar + 6, y + 14, f"{row.perplexity:.1f}", colours["ink"]))
        parts.append(_text(SPEED, y + 14, f"{row.speedup:.2f}x", colours["ink"]))
    foot = "Filled: the blocks that went. Perplexity: less is better. Speed on one H100, measured."
    parts.append(_text(STRIP, height - 8, foot, colours["pale"], size=12))
    font = "-apple-system, BlinkMacSystemFont, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif"
    said = escape("; ".join(f"{row.name}: perplexity {row.perplexity:.1f}, {row.speedup:.2f}x" for row in drawn))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="{font}" role="img">\n<title>{said}</title>'
    )
    return "\n".join([head, *parts, "</svg>", ""])


def _text(x: float, y: float, text: str, colour: str, anchor: str = "start", size: int = 14) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}"'
    return f'<text {place} fill="{colour}" text-anchor="{anchor}">{escape(text)}</text>'


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" rx="1.5" fill="{colour}"/>'


def pictures() -> dict[str, str]:
    """Both pictures, by the names of their files, from the numbers that are recorded in this repository."""
    results = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    healed = json.loads((ROOT / "docs" / "healing.json").read_text(encoding="utf-8"))["models"]
    file = ROOT / "benchmarks" / "quality.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    drawn = rows(results, healed, [json.loads(line) for line in lines])
    return {"depth-light.svg": picture(drawn, LIGHT), "depth-dark.svg": picture(drawn, DARK)}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, content in pictures().items():
        (FOLDER / name).write_text(content, encoding="utf-8")
