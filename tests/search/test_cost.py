"""The cost model, against counted passes."""

import pytest

from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.search.cost import exact_block_passes, reference_block_passes
from optimum_sleb.search.exact import ExactLosses
from optimum_sleb.search.reference import ReferenceLosses

from ..families import NUM_BLOCKS, random_ids, tiny_model
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
    measure(alive, candidates)
    batches = 4 // batch_size
    assert blocks.count == measure.block_passes == passes(alive, candidates) * batches
    assert head.count == measure.head_passes == len(candidates) * batches


@pytest.mark.parametrize("n", [3, 8, 30, 80])
def test_closed_forms(n: int) -> None:
    alive, candidates = range(n), range(1, n - 1)
    assert reference_block_passes(alive, candidates) == (n - 2) * (n - 1)
    assert exact_block_passes(alive, candidates) == (n - 2) + (n - 2) * (n - 1) // 2
