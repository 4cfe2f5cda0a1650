"""The cost model, against counted passes."""

import pytest

from optimum_sleb import SLEBConfig
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.search.cost import exact_block_passes, exact_search_passes, reference_block_passes
from optimum_sleb.search.exact import ExactLosses
from optimum_sleb.search.reference import ReferenceLosses

from ..families import NUM_BLOCKS, random_ids, tiny_model
from ..searching import run_search
from .test_exact import PassCounter


@pytest.mark.parametrize(
    ("kind", "passes"), [(ExactLosses, exact_block_passes), (ReferenceLosses, reference_block_passes)]
)
@pytest.mark.parametrize(
    ("alive", "candidates"),
    [(list(range(NUM_BLOCKS)), [1, 2, 3, 4]), ([0, 1, 3, 5], [1, 3]), ([0, 1, 3, 5], [0, 5]), ([0, 2, 3], [3])],
)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_counted(kind, passes, alive: list[int], candidates: list[int], batch_size: int) -> None:
    model = tiny_model("llama")
    stack = find_decoder_stack(model)
    measure = kind(model, stack, TokenWindows(tuple(random_ids(4, 8))), batch_size)
    blocks, head = PassCounter(stack.blocks), PassCounter([model.lm_head])
    measure.measure(alive, candidates)
    # A pass over a batch is one for each of its windows.
    assert blocks.count * batch_size == measure.block_passes == passes(alive, candidates) * 4
    assert head.count * batch_size == measure.head_passes == len(candidates) * 4


@pytest.mark.parametrize("n", [3, 8, 30, 80])
def test_closed_forms(n: int) -> None:
    alive, candidates = range(n), range(1, n - 1)
    assert reference_block_passes(alive, candidates) == (n - 2) * (n - 1)
    assert exact_block_passes(alive, candidates) == (n - 2) + (n - 2) * (n - 1) // 2


@pytest.mark.parametrize(("early", "latter", "removals"), [(1, 1, 2), (0, 2, 3), (2, 0, 1)])
def test_a_whole_search(early: int, latter: int, removals: int) -> None:
    model = tiny_model("llama")
    windows = TokenWindows(tuple(random_ids(3, 8)))
    config = SLEBConfig(num_blocks_to_remove=removals, early_barrier=early, latter_barrier=latter)
    candidates = range(early, NUM_BLOCKS - latter)
    result = run_search(model, find_decoder_stack(model), windows, candidates, config)
    block_passes, head_passes = exact_search_passes(NUM_BLOCKS, removals, candidates)
    assert result.record.block_passes == 3 * block_passes
    assert sum(len(step.losses) for step in result.steps) == head_passes
