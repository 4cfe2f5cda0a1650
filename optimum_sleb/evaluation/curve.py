"""Perplexity and latency after each removal of one search, for the choice of the number of removals."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..blocks.forward import evaluating, logits_of, vocab_size_of
from ..blocks.stack import DecoderStack, find_decoder_stack
from ..blocks.verify import check_removal
from ..errors import ReportError
from ..models.provenance import check_same_model, provenance_of
from ..report.report import PruningReport
from ..runtime.table import text_table
from ..runtime.turns import one_at_a_time
from ..runtime.undo import undoing
from ..search.compensating import put_weights, repeat_compensation
from .evaluate import conditions_of, data_of
from .perplexity import perplexity
from .scenarios import paper_scenarios
from .scores import Score
from .store import MeasurementStore
from .table import with_error
from .timing import Timing, time_in_turns


@dataclass(frozen=True)
class Depth:
    """Perplexity and prompt latency of the model without the `num_removed` blocks of that depth of the search."""

    num_removed: int
    score: Score
    timing: Timing


@dataclass(frozen=True)
class _Measured:
    """What is kept of a depth: its perplexity, and the indices of the blocks that were skipped."""

    score: Score
    skipped: tuple[int, ...]


@one_at_a_time
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
    """Measure perplexity and prompt latency of the dense model and at each depth of the report, from one block up.

    Blocks are skipped in the dense model, which is restored afterwards. ReportError if it was fine-tuned between runs.
    `calibration` is needed only for compensated cuts whose recipe does not name it; `protocol` goes to `perplexity`.
    """
    stack = find_decoder_stack(model)
    numbers = provenance_of(model, len(stack)).blocks
    check_same_model(model, numbers, report.first_run)
    if report.healed_between_runs:
        raise ReportError(
            "The model was fine-tuned between two runs of the report, so its depths cannot be made of the dense "
            "model; draw the curve of the first run's report."
        )
    gone = [(), *(report.cut(depth).removed_blocks for depth in range(1, len(report.removed_blocks) + 1))]
    for blocks, deeper in zip(gone, [*gone[1:], None], strict=True):
        if deeper is None or not set(blocks) <= set(deeper):  # what a deeper cut contains goes with it
            check_removal(model, stack, numbers, blocks)
    store, measured = MeasurementStore(progress_dir), list[_Measured]()
    conditions: dict[str, Any] = {"dataset": dataset, "protocol": {key: str(value) for key, value in protocol.items()}}
    if progress_dir is not None:
        data_dir = protocol.get("data_dir")
        conditions |= conditions_of(model, tokenizer)
        conditions["data"] = data_of(dataset, None if data_dir is None else Path(data_dir))
        conditions["calibration"] = report.calibration.fingerprint if report.calibration else None
    for depth, blocks in enumerate(gone):
        recipe = None if report.recipe is None else report.recipe.to_dict()
        indices = [numbers.index(block) for block in blocks]
        of_depth = {"removed": indices, "recipe": recipe, **conditions}

        def measure(depth: int = depth) -> _Measured:
            cut = report.cut(depth) if depth else None
            with _compensated(model, stack, numbers, cut, calibration, tokenizer) as removed, stack.skipping(removed):
                score = perplexity(model, tokenizer, dataset, **protocol).score()
                return _Measured(score, tuple(sorted(removed)))

        measured.append(store.get_or_measure(f"depth-{depth}", of_depth, _Measured, measure))
    timings = _latencies(model, stack, [one.skipped for one in measured], repeats)
    return tuple(
        Depth(number, one.score, timing) for number, (one, timing) in enumerate(zip(measured, timings, strict=True))
    )


def curve_table(depths: tuple[Depth, ...]) -> str:
    """Return the curve as lines of text; the first depth must be the dense model."""
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
) -> Iterator[set[int]]:
    """Give the model the weights that compensate a cut report, and restore its own on exit. Yield the indices of the
    blocks that go, which the compensation may choose."""
    weights: dict[str, Tensor] = {}
    if cut is not None:
        weights, cut = repeat_compensation(model, stack, numbers, cut, calibration, tokenizer)
    originals = {name: model.get_parameter(name).data for name in weights}
    with undoing(lambda: put_weights(model, originals)):
        put_weights(model, weights)
        yield set() if cut is None else {numbers.index(block) for block in cut.removed_blocks}


def _latencies(
    model: PreTrainedModel, stack: DecoderStack, skipped: Sequence[Sequence[int]], repeats: int
) -> list[Timing]:
    """Time one prompt at each depth, in turns."""
    scenario, *_ = paper_scenarios(model)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocab_size_of(model), (1, scenario.prompt_length), generator=generator).to(model.device)

    def run(removed: set[int]) -> None:
        with stack.skipping(removed):
            logits_of(model, ids)

    runs: list[Callable[[], None]] = [partial(run, set(indices)) for indices in skipped]
    with evaluating(model):
        return time_in_turns(runs, model.device, repeats=repeats, warm_up=1)
