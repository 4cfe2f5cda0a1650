"""The pictures of the page, as HTML that fits any width: the bar, the chart of losses and the strip of blocks."""

import math
from collections.abc import Collection, Mapping
from html import escape

from following import View


def bar(view: View, elapsed: float, note: str = "") -> str:
    """Return how far a search is."""
    done, most = len(view.steps), view.max_steps
    of = f" of {most}" if most else ""
    left = f", about {duration(view.eta)} left" if view.eta else ""
    return _bar(done / most if most else 0.0, note or f"Step {done}{of} done, {duration(elapsed)}{left}")


def waiting(what: str, elapsed: float) -> str:
    """Return that something runs whose end is not known."""
    return _bar(None, f"{what}, {duration(elapsed)}")


def _bar(share: float | None, text: str) -> str:
    filled = 'class="sleb-fill sleb-unknown"' if share is None else f'class="sleb-fill" style="width:{share:.1%}"'
    return (
        f'<div class="sleb-bar" role="progressbar"><div {filled}></div></div><p class="sleb-note">{escape(text)}</p>'
    )


def strip(numbers: Collection[int], gone: Collection[int] = (), barred: Mapping[int, str] | None = None) -> str:
    """Return the stack as cells, by the numbers of its blocks: what is gone, what cannot go, and what stays."""
    barred = barred or {}
    cells = []
    for block in numbers:
        kind = "gone" if block in gone else "barred" if block in barred else "kept"
        why = {"gone": "is gone", "kept": "stays", "barred": f"cannot go: {barred.get(block)}"}[kind]
        cells.append(f'<span class="sleb-cell sleb-{kind}" title="block {block} {escape(why)}">{block}</span>')
    legend = "".join(
        f'<span class="sleb-key"><i class="sleb-cell sleb-{kind}"></i>{word}</span>'
        for kind, word, shown in (("gone", "gone", gone), ("kept", "there", True), ("barred", "cannot go", barred))
        if shown
    )
    return f'<div class="sleb-strip">{"".join(cells)}</div><div class="sleb-legend">{legend}</div>'


def chart(view: View, depth: int | None = None) -> str:
    """Return the metric after each step, with the candidates that lost; `depth` is marked."""
    values = [view.before, *(step.value for step in view.steps)]
    is_log = view.metric == "perplexity"
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite), max(finite)
    high += 0.6 * max(high - low, 0.05 * abs(high), 1e-9)  # room for the candidates; those far above do not stretch it
    low, high = (math.log(low), math.log(high)) if is_log else (low, high)
    low -= 0.06 * (high - low)
    most = max(view.max_steps or 0, len(view.steps), 1)

    def x(step: int) -> float:
        return 3 + 94 * step / most

    def y(value: float) -> float:
        return 100 * min(((math.log(value) if is_log else value) - low) / (high - low), 1.01)

    marks, above = [], 0
    for number, step in enumerate(view.steps, start=1):
        for name, value in step.others.items():
            if math.isfinite(value) and 0 <= (height := y(value)) <= 100:
                tip = f"step {number}, without {name}: {shown(value, view.metric)}"
                marks.append(
                    f'<i class="sleb-lost" style="left:{x(number):.2f}%;bottom:{height:.2f}%" title="{tip}"></i>'
                )
            else:
                above += 1
    points = [(x(number), y(value)) for number, value in enumerate(values)]
    for number, (left, bottom) in enumerate(points):
        chosen = " sleb-chosen" if number == depth else ""
        tip = f"{number} removed: {shown(values[number], view.metric)}"
        marks.append(f'<i class="sleb-dot{chosen}" style="left:{left:.2f}%;bottom:{bottom:.2f}%" title="{tip}"></i>')
    line = " ".join(f"{left:.2f},{100 - bottom:.2f}" for left, bottom in points)
    ticks = {share: _back(low + share * (high - low), is_log) for share in (0.06, 0.35, 0.64, 0.93)}
    grid = "".join(
        f'<span class="sleb-tick" style="bottom:{100 * share:.0f}%">{shown(value, view.metric)}</span>'
        for share, value in ticks.items()
    )
    every = math.ceil(most / 10)
    below = "".join(
        f'<span class="sleb-step" style="left:{x(step):.2f}%">{step}</span>' for step in range(0, most + 1, every)
    )
    more = f", {above} lie higher" if above else ""
    return (
        f'<div class="sleb-chart"><p class="sleb-title">{escape(view.metric.capitalize())} on the calibration text</p>'
        f'<div class="sleb-plot">{grid}<svg viewBox="0 0 100 100" preserveAspectRatio="none">'
        f'<polyline points="{line}"/></svg>{"".join(marks)}</div><div class="sleb-steps">{below}</div>'
        f'<p class="sleb-note">Blocks removed. <i class="sleb-dot"></i> the model, <i class="sleb-lost"></i> '
        f"candidates that lost{more}</p></div>"
    )


def _back(value: float, is_log: bool) -> float:
    return math.exp(value) if is_log else value


def shown(value: float, metric: str) -> str:
    """Return a value of a metric as a reader compares it."""
    return f"{value:,.2f}" if metric == "perplexity" else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Return a time as a reader takes it in."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
