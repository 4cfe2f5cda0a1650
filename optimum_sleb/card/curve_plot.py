"""The plot of perplexity and speed for every depth of a search."""

from collections.abc import Sequence
from pathlib import Path

from ..evaluation.curve import Depth
from ..report.plot_style import BLUE, BROWN, label_removed_blocks, new_figure, save_png, style_axes, use_log_scale


def draw_curve(depths: Sequence[Depth], path: Path) -> None:
    """Draw perplexity and speed-up against blocks removed into a PNG; `depths` starts with the dense model."""
    figure = new_figure(6, 5)
    above, below = figure.subplots(2, 1, sharex=True)
    numbers = [depth.num_removed for depth in depths]
    scores = [depth.score for depth in depths]
    values, errors = [score.value for score in scores], [score.stderr or 0.0 for score in scores]
    above.errorbar(numbers, values, yerr=errors, color=BLUE, marker="o", capsize=3, linewidth=2)
    use_log_scale(above, (1, 1.5, 2, 3, 5, 7))
    style_axes(above, f"perplexity, {Path(scores[0].task).name}")
    speedups = [depths[0].timing.median / depth.timing.median for depth in depths]
    below.plot(numbers, speedups, color=BROWN, marker="s", linewidth=2)
    style_axes(below, "speed-up of a prompt")
    label_removed_blocks(below)
    save_png(figure, path)
