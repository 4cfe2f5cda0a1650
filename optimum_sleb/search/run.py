"""A whole search: from a model and token windows to the order of removal."""

import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice

from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..blocks.gates import refusal
from ..blocks.precision import computes_in_float32, computing_in_float32
from ..blocks.stack import DecoderStack
from ..calibration.windows import TokenWindows
from ..config import SLEBConfig
from ..errors import ConfigError, NonFiniteLossError
from ..report import SearchRecord, StepRecord
from ..units import perplexity_of
from .choice import choose_method
from .cost import exact_block_passes
from .greedy import Step, greedy_search
from .measurement import model_losses


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        steps: The removals, in order; blocks are indices in the model as it came.
        seconds: Duration of each step.
        record: How the search measured.
    """

    steps: tuple[Step, ...]
    seconds: tuple[float, ...]
    record: SearchRecord

    def step_records(self, names: Sequence[int]) -> tuple[StepRecord, ...]:
        """The removals as the report tells them.

        Args:
            names: Numbers of the model's blocks in the dense model.

        Returns:
            A record for each removal.

        Example:
            ```python
            result.step_records(pruner.blocks)
            ```
        """
        return tuple(
            StepRecord(
                block=names[step.block],
                candidate_losses={names[block]: loss for block, loss in step.losses.items()},
                barred_blocks={names[block]: reason for block, reason in step.barred.items()},
                dropped_blocks={names[block]: windows for block, windows in step.dropped.items()},
                seconds=seconds,
            )
            for step, seconds in zip(self.steps, self.seconds, strict=True)
        )


def run_search(
    model: PreTrainedModel,
    stack: DecoderStack,
    windows: TokenWindows,
    candidates: Sequence[int],
    config: SLEBConfig,
) -> SearchResult:
    """Search for the blocks that go. The model is left as it was.

    Args:
        model: The model.
        stack: Its decoder blocks.
        windows: The calibration windows.
        candidates: Indices of the blocks that may go, ascending.
        config: The recipe.

    Returns:
        The removals and how they were measured.

    Raises:
        NonFiniteLossError: If a loss is NaN or infinite.

    Example:
        ```python
        result = run_search(model, stack, windows, range(1, 29), SLEBConfig(num_blocks_to_remove=6))
        print([step.block for step in result.steps])  # [5, 4, 26, 3, 25, 6]
        ```
    """
    limit = config.num_blocks_to_remove_of(len(stack))
    total = None if limit is None else len(windows) * sum(len(candidates) - removed for removed in range(limit))
    precision = computing_in_float32(model) if computes_in_float32(model, config.search_dtype) else nullcontext()
    with precision, tqdm(total=total, desc="SLEB", unit="candidate window", disable=None) as bar:
        dense = model_losses(model, windows, config.batch_size)
        if not dense.isfinite().all():
            window = int((~dense.isfinite()).nonzero()[0])
            raise NonFiniteLossError(
                f"The loss of window {window} is {dense[window].item()} before any block is removed; if the model is "
                "in float16, load it with dtype='bfloat16' or 'float32'."
            )
        loss_before = dense.double().sum().item()
        perplexity_before = perplexity_of(loss_before, windows.num_tokens)

        def increase(loss: float) -> float:
            return perplexity_of(loss, windows.num_tokens) / perplexity_before - 1

        def is_within_budget(loss: float) -> bool:
            budget = config.max_perplexity_increase
            if budget is not None and not steps and increase(loss) > budget:
                raise ConfigError(
                    f"No block can be removed within max_perplexity_increase={budget}: even the best removal raises "
                    f"the perplexity by {increase(loss):.3g} of its value; allow more."
                )
            return budget is None or increase(loss) <= budget

        refused: dict[int, str] = {}

        def refusal_of(removed: set[int], block: int) -> str | None:
            reason = refusal(model, stack, {*removed, block})
            if reason is not None:
                refused[block] = reason
            return reason

        steps: list[Step] = []
        seconds: list[float] = []
        method = choose_method(model, stack, windows, candidates, config, bar.update)
        search = greedy_search(
            method.step,
            len(stack),
            early_barrier=config.early_barrier,
            latter_barrier=config.latter_barrier,
            removable=candidates,
            refusal=refusal_of,
            accept=is_within_budget,
        )
        started = time.perf_counter()
        for step in islice(search, limit):
            now = time.perf_counter()
            steps.append(step)
            seconds.append(now - started)
            started = now
            bar.set_postfix(removed=step.block, perplexity=f"{perplexity_of(step.loss, windows.num_tokens):.2f}")
        if limit is not None and len(steps) < limit:
            warnings.warn(
                f"{len(steps)} of the {limit} blocks asked for were removed: no other can go with them "
                f"({'; '.join(f'block {block}: {reason}' for block, reason in refused.items()) or 'none is left'}).",
                stacklevel=2,
            )
        record = SearchRecord(
            method=method.name,
            reason=method.reason,
            dtype=str(model.dtype).removeprefix("torch."),
            device=str(model.device),
            block_passes=method.measure.block_passes,
            loss_before=loss_before,
            exact_block_passes=_exact_block_passes(steps, len(stack), windows, config)
            if config.search == "racing"
            else None,
        )
    return SearchResult(tuple(steps), tuple(seconds), record)


def _exact_block_passes(steps: Sequence[Step], num_blocks: int, windows: TokenWindows, config: SLEBConfig) -> int:
    """What the exact search would have run for these removals."""
    alive = list(range(num_blocks))
    passes = 0
    for step in steps:
        passes += exact_block_passes(alive, sorted({*step.losses, *step.dropped}))
        alive.remove(step.block)
    return passes * sum(1 for _ in windows.batches(config.batch_size))
