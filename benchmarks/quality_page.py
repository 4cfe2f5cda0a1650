"""Write the tables of docs/quality.md from the rows that benchmarks/quality.py measured.

python benchmarks/quality_page.py
"""

import textwrap
from pathlib import Path
from typing import Any

from quality import DENSE, ROWS, read_lines
from results_page import table

from optimum_sleb.evaluation.scores import Score, difference_stderr, mean_score

RESULTS = Path(__file__).parent / "quality.jsonl"
PAGE = Path(__file__).parents[1] / "docs" / "quality.md"
FIRST, LAST = "<!-- figures: written by benchmarks/quality_page.py -->\n", "<!-- end of the figures -->\n"
TEXTS = {"wikitext2": "WikiText-2", "c4": "C4", "text": "another text"}

# Models by their files; any other goes by its file's name.
NAMES = {
    "SmolLM2-135M-Instruct.Q4_1.gguf": "SmolLM2-135M-Instruct",
    "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf": "Qwen2.5-Coder-0.5B-Instruct",
}


def filled(page: str, rows: list[dict[str, Any]]) -> str:
    """A page with the figures of these rows in the place of those that it has."""
    before, rest = page.split(FIRST)
    _, after = rest.split(LAST)
    return before + FIRST + "\n" + figures(rows) + "\n" + LAST + after


def figures(rows: list[dict[str, Any]]) -> str:
    """A section for each model, and for each way to measure it."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        settings = {name: value for name, value in row["settings"].items() if name != "run_from"}
        groups.setdefault(f"{row['model']} {settings}", []).append(row)
    dense = {row["model"]: row for row in reversed(rows) if row["row"] == DENSE}  # its row depends on no calibration
    sections: list[str] = []
    named: set[str] = set()
    for group in groups.values():
        model = group[0]["model"]
        more = f", {group[0]['settings']['windows']} windows" if model in named else ""
        named.add(model)
        if model in dense and all(row["row"] != DENSE for row in group):
            group = [dense[model], *group]
        sections.append(f"### {NAMES.get(model, model)}{more}\n\n{section(group)}")
    return "\n\n".join(sections) + "\n"


def section(rows: list[dict[str, Any]]) -> str:
    """The table of one model: the dense one first, then depth by depth, in the order of `ROWS`."""
    order = list(ROWS)
    rows = sorted(rows, key=lambda row: (row["depth"], order.index(row["row"])))
    first = rows[0]
    texts = [text for text in TEXTS if text in first["perplexity"]]
    head = ["blocks", "how they were chosen", "compensation", *(TEXTS[text] for text in texts), "taken back"]
    head += ["zero-shot", "against dense", "minutes", "GB", "removed"]
    lines = [cells(row, texts, rows) for row in rows]
    # A dense row may be that of another table.
    settings, made = rows[-1]["settings"], [row["made"] for row in rows]
    counts = ", ".join(f"{first['perplexity'][text]['examples']} of {TEXTS[text]}" for text in texts)
    machines = [
        f"{one['device']}, torch {one['torch']}, transformers {one['transformers']}, {one['date']}" for one in made
    ]
    how = (
        f"Calibrated on {settings['windows']} windows of {settings['window_length']:,} tokens, half WikiText-2 "
        "validation text, half the first half of the C4 sample; evaluated on other text, in windows as long "
        f'({counts}). "Taken back" is the share of what the published search adds to the perplexity at this depth, on '
        f"{' / '.join(TEXTS[text] for text in texts)}. Zero-shot is the mean of the five tasks, the first "
        f"{settings['limit']:,} rows of each; its difference from the dense model has an error taken example by "
        "example. Minutes are those of search and compensation, GB the most memory beyond the weights meanwhile. "
        f"bfloat16, {'; '.join(dict.fromkeys(machines))}."
    )
    shown = table([head, *lines], num_left=3)
    return "\n\n".join([shown, textwrap.fill(how, width=119)])


def cells(row: dict[str, Any], texts: list[str], rows: list[dict[str, Any]]) -> list[str]:
    """A line of the table."""
    names = ROWS[row["row"]]
    dense = next((other for other in rows if other["row"] == DENSE), None)
    published = next((other for other in rows if (other["row"], other["depth"]) == ("loss", row["depth"])), None)
    compared = row["row"] != DENSE and dense is not None
    taken_back = ""
    if compared and published is not None and published is not row:
        taken_back = " / ".join(f"{share(row, dense, published, text):.0%}" for text in texts)
    accuracy = row["zero_shot_mean"]
    return [
        str(row["depth"]),
        names.chosen,
        names.compensation,
        *(f"{row['perplexity'][text]['value']:.1f}" for text in texts),
        taken_back,
        f"{accuracy['value']:.3f} ± {accuracy['stderr']:.3f}",
        against(row, dense) if compared else "",
        f"{row['seconds'] / 60:.1f}" if "seconds" in row else "",
        f"{(row['peak_bytes'] - row['weights_bytes']) / 1e9:.1f}" if row.get("peak_bytes") else "",
        " ".join(map(str, row["blocks"])),
    ]


def share(row: dict[str, Any], dense: dict[str, Any], published: dict[str, Any], text: str) -> float:
    """The share of the perplexity that the published search adds which a row does not."""
    least, most, this = (one["perplexity"][text]["value"] for one in (dense, published, row))
    return (most - this) / (most - least)


def against(row: dict[str, Any], dense: dict[str, Any]) -> str:
    """The difference of the zero-shot means, and its error."""
    this, other = mean_of(row), mean_of(dense)
    return f"{this.value - other.value:+.3f} ± {difference_stderr(this, other):.3f}"


def mean_of(row: dict[str, Any]) -> Score:
    """The mean of the five tasks, with what each example gave."""
    scores = [
        Score(
            task, "accuracy", one["value"], "", True, one["examples"], one["stderr"], tuple(map(float, one["right"]))
        )
        for task, one in row["zero_shot"].items()
    ]
    return mean_score("mean", scores, "")


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), read_lines(RESULTS)), encoding="utf-8")
