"""Compiled blocks and losses against the model as it is."""

import pytest
import torch
from torch._dynamo.utils import counters

from optimum_sleb.blocks.kernels import UNCOMPILED, compiled_kernels
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.search.exact import ExactLosses

from ..families import FAMILIES, NUM_BLOCKS, random_ids, tiny_model

BATCH, LENGTH = 2, 20


def measure_with(kernels, family: str) -> torch.Tensor:
    model = tiny_model(family)
    # The last window makes a batch of another shape.
    windows = TokenWindows(tuple(random_ids(2 * BATCH + 1, LENGTH)))
    measure = ExactLosses(model, find_decoder_stack(model), windows, BATCH, kernels=kernels)
    steps = [measure.measure(range(NUM_BLOCKS), [1, 3, 4]).matrix, measure.measure([0, 1, 3, 5], [1, 3]).matrix]
    return torch.cat([*steps, measure.losses_of(range(NUM_BLOCKS))[None]])


@pytest.mark.long
@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize("family", FAMILIES)
def test_one_graph_for_all_blocks_of_a_kind_and_one_for_the_loss(family: str) -> None:
    counters.clear()
    kernels = compiled_kernels(BATCH, LENGTH, blocks=True, loss=True)
    torch.testing.assert_close(measure_with(kernels, family), measure_with(UNCOMPILED, family), rtol=1e-5, atol=1e-5)
    kinds = len(set(getattr(tiny_model(family).config.get_text_config(), "layer_types", None) or ["one"]))
    assert 2 <= counters["stats"]["unique_graphs"] <= kinds + 1
    assert not counters["graph_break"]


@pytest.mark.long
def test_generated_code_computes_the_same(device: str) -> None:
    torch._dynamo.reset()
    model = tiny_model("llama").to(device)
    windows = TokenWindows(tuple(random_ids(BATCH, LENGTH)))
    stack = find_decoder_stack(model)
    kernels = compiled_kernels(BATCH, LENGTH, blocks=True, loss=True)
    fused = ExactLosses(model, stack, windows, BATCH, kernels=kernels).measure(range(NUM_BLOCKS), [1, 4]).matrix
    plain = ExactLosses(model, stack, windows, BATCH).measure(range(NUM_BLOCKS), [1, 4]).matrix
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-5)
