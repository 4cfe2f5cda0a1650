"""Every depth of one search: what is lost and what is gained, so that a person picks the depth by looking."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..blocks.forward import logits_of, measuring, vocab_size_of
from ..blocks.stack import DecoderStack, find_decoder_stack
from ..errors import ReportError
from ..provenance import check_same_model, provenance_of
from ..removal import check_removal, compensation_of
from ..report import PruningReport
from ..search.compensating import put_weights
from .evaluate import conditions_of, data_of
from .finished import Finished
from .perplexity import perplexity
from .scenarios import paper_scenarios
from .scores import Score
from .table import text_table, with_error
from .timing import Timing, time_in_turns


@dataclass(frozen=True)
class Depth:
    """One point of the curve.

    Attributes:
        num_removed: Number of blocks removed.
        score: The perplexity without them.
        timing: The latency of a prompt without them.
    """

    num_removed: int
    score: Score
    timing: Timing


def curve(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    report: PruningReport,
    dataset: str = "wikitext2",
    *,
    calibration: Any = None,
    repeats: int = 5,
    progress_dir: str | Path | None = None,
    **protocol: Any,
) -> tuple[Depth, ...]:
    """Measure every depth of a search in one model: the order of removal is nested.

    Removed blocks are skipped, so that one dense model serves all depths, and comes back as it was. Where the search
    compensated its cuts, so is every depth, as `SLEBPruner.apply` does it.

    Args:
        model: The dense model that the search began with.
        tokenizer: Its tokenizer.
        report: The report of the search.
        dataset: The text to measure perplexity on; see `perplexity`.
        calibration: The calibration data of the search, where its cuts were compensated and its recipe does not name
            them.
        repeats: How often the latency of each depth is timed, in turns; the prompt is that of `paper_scenarios`.
        progress_dir: Folder in which the perplexity of every finished depth is kept.
        **protocol: Passed on to `perplexity`: `window_length`, `max_windows`, ...

    Returns:
        The depths, from the dense model on.

    Raises:
        ReportError: If the report is of another model, of one that was fine-tuned between two runs, or of several runs
            any of which compensated.
        UnsupportedModelError: If this architecture's blocks cannot be removed.
        CalibrationError: If the text, or the calibration data, cannot be used.

    Example:
        ```python
        for depth in curve(dense, tokenizer, PruningReport.load("smollm2-sleb-20")):
            print(depth.num_removed, depth.score.value, depth.timing.median)
        ```
    """
    stack = find_decoder_stack(model)
    numbers = provenance_of(model, len(stack)).blocks
    check_same_model(model, numbers, report.first_run)
    if report.healed_between_runs:
        raise ReportError(
            "The model was fine-tuned between two runs of the report, so its depths cannot be made of the dense "
            "model; draw the curve of the first run's report."
        )
    check_removal(model, stack, numbers, report.removed_blocks)
    finished, scores = Finished(progress_dir), []
    conditions: dict[str, Any] = {"dataset": dataset, "protocol": {key: str(value) for key, value in protocol.items()}}
    if progress_dir is not None:
        data_dir = protocol.get("data_dir")
        conditions |= conditions_of(model, tokenizer)
        conditions["data"] = data_of(dataset, None if data_dir is None else Path(data_dir))
        conditions["calibration"] = report.calibration.fingerprint if report.calibration else None
    order = [numbers.index(block) for block in report.removed_blocks]
    for depth in range(len(order) + 1):
        recipe = None if report.recipe is None else report.recipe.to_dict()
        of_depth = {"removed": order[:depth], "recipe": recipe, **conditions}

        def measure(depth: int = depth) -> Score:
            cut = report.cut(depth) if depth else None
            with _compensated(model, stack, numbers, cut, calibration, tokenizer), stack.without(set(order[:depth])):
                return perplexity(model, tokenizer, dataset, **protocol).score()

        scores.append(finished.get_or_measure(f"depth-{depth}", of_depth, Score, measure))
    timings = _latencies(model, stack, order, repeats)
    return tuple(Depth(*point) for point in zip(range(len(order) + 1), scores, timings, strict=True))


def curve_table(depths: tuple[Depth, ...]) -> str:
    """The curve as a table.

    Args:
        depths: The depths, the dense model first.

    Returns:
        Lines of text, without a final line break.

    Example:
        ```python
        print(curve_table(curve(dense, tokenizer, report)))
        ```
    """
    dense = depths[0]
    rows = [["blocks removed", "", "perplexity", "increase", "prompt, ms", "speed-up"]]
    for depth in depths:
        increase = f"{depth.score.value / dense.score.value - 1:+.1%}" if depth.num_removed else ""
        faster = f"{dense.timing.median / depth.timing.median:.2f}x"
        perplexity = with_error(depth.score.value, depth.score.stderr)
        rows.append([str(depth.num_removed), "", perplexity, increase, f"{depth.timing.median * 1000:.1f}", faster])
    return text_table(rows)


@contextmanager
def _compensated(
    model: PreTrainedModel,
    stack: DecoderStack,
    numbers: tuple[int, ...],
    cut: PruningReport | None,
    calibration: Any,
    tokenizer: PreTrainedTokenizerBase,
) -> Iterator[None]:
    """Let the model have the weights that compensate a cut, for a while."""
    weights: dict[str, Tensor] = {}
    if cut is not None:
        weights, _ = compensation_of(model, stack, numbers, cut, calibration, tokenizer)
    originals = {name: model.get_parameter(name).detach().clone() for name in weights}
    try:
        put_weights(model, weights)
        yield
    finally:
        put_weights(model, originals)


def _latencies(model: PreTrainedModel, stack: DecoderStack, order: list[int], repeats: int) -> list[Timing]:
    """The latency of a prompt at every depth, in turns."""
    scenario, *_ = paper_scenarios(model)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocab_size_of(model), (1, scenario.prompt_length), generator=generator).to(model.device)

    def run(removed: set[int]) -> None:
        with stack.without(removed):
            logits_of(model, ids)

    runs: list[Callable[[], None]] = [partial(run, set(order[:depth])) for depth in range(len(order) + 1)]
    with measuring(model):
        return time_in_turns(runs, model.device, repeats=repeats, warm_up=1)
