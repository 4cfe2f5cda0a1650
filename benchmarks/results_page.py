"""Write docs/results.md from what benchmarks/results.py measured.

python benchmarks/results_page.py
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results.json"
PAGE = Path(__file__).parents[1] / "docs" / "results.md"
NAMES = {
    "wikitext2": "WikiText-2 test, as published",
    "wiki.test.raw": "WikiText-2 test, the file as it is",
    "piqa": "PIQA",
    "winogrande": "WinoGrande",
    "hellaswag": "HellaSwag",
    "arc_easy": "ARC-easy",
    "arc_challenge": "ARC-challenge",
}
COMMANDS = """\
```bash
python examples/fetch_smollm2.py .cache/smollm2
python benchmarks/results.py measure --model .cache/smollm2 --gguf-file SmolLM2-135M-Instruct.Q4_1.gguf \\
    --data-dir DATA --output benchmarks/results.json
python benchmarks/results_page.py
```

One model against another, from the command line:

```bash
optimum-cli sleb evaluate --model DIR --baseline MODEL --tasks paper
optimum-cli sleb benchmark --model DIR --baseline MODEL
```
"""
LAUNCHES = """
So what is timed here is mostly the program that launches; it too has less to do with fewer blocks, but is noisy."""
ELSEWHERE = """\
This page has the published procedure, and one model compensated at the gaps. What was measured later stands elsewhere:
the best preset on [quality.md](quality.md), healed models on [healing.md](healing.md), the time that a search takes in
[benchmarks](../benchmarks/README.md). SmolLM2 is a Q4_1 file out of a wheel of PyPI, dequantised when it is loaded:
that is what "dense" means here."""
PLAIN = "All plain cuts come from one search, on WikiText-2; nothing was trained afterwards."
COMPENSATED = """ The compensated model was searched
for with `compensate="during"` ([quality.md](quality.md)), on WikiText-2 validation text and
the first half of the C4 sample."""
PERPLEXITY = "Perplexity (less is better), with standard errors."
ZERO_SHOT = " Zero-shot accuracy: more is better; chance is 0.5 for PIQA and\nWinoGrande, 0.25 for the others."
LOSSES = "What was lost against the dense model, its standard error taken example by example:"


def page(results: dict[str, Any]) -> str:
    """The page."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    parts = [
        "# Results",
        f"Measured on {results['date']} on {results['device']}, {versions}, in bfloat16.",
        ELSEWHERE,
        _quality(results["models"]),
        *(_speeds(results["speeds"][name], title) for name, title in TITLES.items() if name in results["speeds"]),
        "## The commands",
        "DATA is a folder as [evaluation.md](evaluation.md#without-the-hub) describes it.",
        COMMANDS.rstrip(),
    ]
    return "\n\n".join(parts) + "\n"


TITLES = {
    "smollm2": "## What was gained: SmolLM2-135M-Instruct",
    "shape": "## What was gained: LLaMA-2-7B shape, random weights",
}


def _quality(models: dict[str, Any]) -> str:
    cuts = "\n".join(
        f"- **{name}**: {model['parameters'] / 1e6:.1f} M parameters"
        + (f", without blocks {' '.join(map(str, model['removed']))}" if model["removed"] else "")
        for name, model in models.items()
    )
    rows = [["", *models]]
    measured = next(iter(models.values()))["scores"]
    for number, score in enumerate(measured):
        name = NAMES.get(score["dataset"], score["dataset"].replace(".jsonl", ""))
        name = "C4 sample, second half" if "second-half" in name else name
        cells = [_score(model["scores"][number]) for model in models.values()]
        rows.append([f"{name}, {score['metric']}", *cells])
    protocols = "\n".join(
        f"- {NAMES.get(score['dataset'], 'C4 sample' if 'half' in score['dataset'] else score['dataset'])}: "
        f"{score['protocol']}"
        for score in measured
    )
    sections = ["## What was lost: SmolLM2-135M-Instruct", PLAIN]
    if any("compensated" in name for name in models):
        sections[-1] += COMPENSATED
    losses = list(_losses(models, measured))
    sections += [cuts, PERPLEXITY + (ZERO_SHOT if losses else ""), table(rows)]
    sections += ["How it was measured ([evaluation.md](evaluation.md)):", protocols]
    if losses:
        sections += [LOSSES, table([["", *list(models)[1:]], *losses])]
    return "\n\n".join(sections)


def _losses(models: dict[str, Any], measured: list[dict[str, Any]]) -> Iterable[list[str]]:
    for number, score in enumerate(measured):
        if score["metric"] == "perplexity":
            continue
        cells = []
        for model in list(models.values())[1:]:
            one = model["scores"][number]
            cells.append(f"{one['after'] - one['before']:+.3f} ± {one['difference_stderr']:.3f}")
        yield [NAMES.get(score["dataset"], score["dataset"]), *cells]


def _speeds(speeds: list[dict[str, Any]], title: str) -> str:
    place = speeds[0]["protocol"].rpartition(" on ")[2]
    sections = [title, f"Timed on one {place}."]
    for protocol in dict.fromkeys(speed["protocol"] for speed in speeds):
        chosen = [speed for speed in speeds if speed["protocol"] == protocol]
        dense = chosen[0]
        rows = [["", dense["unit"], "quartiles", "speed-up", "blocks' ratio", "GB at most"]]
        before = _gigabytes(dense["before_peak_bytes"])
        rows.append(["dense", _speed(dense["before"]), _quartiles(dense["before_spread"]), "", "", before])
        for speed in chosen:
            ratio = _ratio(speed)
            memory = _gigabytes(speed["after_peak_bytes"])
            quartiles = _quartiles(speed["after_spread"])
            rows.append([speed["name"], _speed(speed["after"]), quartiles, ratio, f"{speed['ideal']:.3f}", memory])
        kind = "Prompt" if dense["scenario"] == "prompt" else "Generation"
        sections += [f"**{kind}**, {protocol.rpartition(', ')[0]}:", table(rows), _where(dense["parts"])]
    return "\n\n".join(sections)


def _where(parts: dict[str, float | None]) -> str:
    text = (
        f"Of the dense model's time {parts['blocks']:.1%} is spent in the blocks, {parts['head']:.1%} in the head, "
        f"{parts['rest']:.1%} elsewhere"
    )
    if parts["idle"] is None:
        return f"{text}."
    text = f"{text}; its GPU waits for launches {parts['idle']:.0%} of it."
    return text + (LAUNCHES if parts["idle"] > 0.5 else "")


def _ratio(speed: dict[str, Any]) -> str:
    in_ms = speed["unit"] == "ms"
    return f"{speed['before'] / speed['after'] if in_ms else speed['after'] / speed['before']:.3f}"


def _score(score: dict[str, Any]) -> str:
    digits = 1 if score["metric"] == "perplexity" else 3
    error = "" if score["after_stderr"] is None else f" ± {score['after_stderr']:.{digits}f}"
    return f"{score['after']:.{digits}f}{error}"


def _speed(value: float) -> str:
    return f"{value:,.1f}"


def _quartiles(values: list[float]) -> str:
    return " - ".join(f"{value:,.1f}" for value in values)


def _gigabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e9:.2f}"


def table(rows: list[list[str]], num_left: int = 1) -> str:
    """A table in Markdown; the first row is its head, and so many columns are aligned to the left."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, f"|{'---|' * num_left}{'---:|' * (len(rows[0]) - num_left)}")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")
