"""The exact search against the reference: the same losses and decisions, for about half the work."""

import pytest
import torch
from torch import nn

from optimum_sleb.blocks.kernels import Kernels
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.search.exact import ExactLosses
from optimum_sleb.search.reference import ReferenceLosses

from ..families import FAMILIES, NUM_BLOCKS, random_ids, tiny_model


class PassCounter:
    """Counts how often the blocks of a model really run, whoever calls them."""

    def __init__(self, blocks: nn.ModuleList) -> None:
        self.count = 0
        for block in blocks:
            block.register_forward_hook(self._increment)

    def _increment(self, *_: object) -> None:
        self.count += 1


@pytest.mark.parametrize(
    "alive",
    [
        pytest.param(range(NUM_BLOCKS), id="all", marks=pytest.mark.long),
        pytest.param([0, 1, 3, 5], id="after two removals"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_losses_equal_the_reference(family: str, alive: list[int], device: str) -> None:
    model = tiny_model(family).to(device)
    stack = find_decoder_stack(model)
    windows = TokenWindows(tuple(random_ids(5, 20)))
    candidates = [block for block in alive if block > 0]

    fast = ExactLosses(model, stack, windows, batch_size=2).measure(alive, candidates).matrix
    slow = ReferenceLosses(model, stack, windows).measure(alive, candidates).matrix

    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)


def test_chunks_of_the_loss_change_nothing() -> None:
    model = tiny_model("gemma2")  # its logits are soft-capped
    stack = find_decoder_stack(model)
    windows = TokenWindows(tuple(random_ids(2, 20)))
    whole = ExactLosses(model, stack, windows).measure(range(NUM_BLOCKS), [2, 3]).matrix
    few = Kernels(max_logits=3 * model.config.vocab_size)  # three positions at a time
    chunked = ExactLosses(model, stack, windows, kernels=few).measure(range(NUM_BLOCKS), [2, 3]).matrix
    torch.testing.assert_close(chunked, whole)


def test_a_batch_is_its_windows_one_by_one() -> None:
    model = tiny_model("llama")
    stack = find_decoder_stack(model)
    windows = TokenWindows((*random_ids(3, 20), *random_ids(2, 11)))  # of two lengths
    alone = ExactLosses(model, stack, windows).measure(range(NUM_BLOCKS), [1, 4]).matrix
    together = ExactLosses(model, stack, windows, batch_size=4).measure(range(NUM_BLOCKS), [1, 4]).matrix
    torch.testing.assert_close(together, alone)


@pytest.mark.long
def test_takes_at_most_55_percent_of_the_block_passes_on_30_blocks() -> None:
    model = tiny_model("llama", num_hidden_layers=30, hidden_size=8, intermediate_size=8, head_dim=2)
    stack = find_decoder_stack(model)
    windows = TokenWindows(tuple(random_ids(2, 6)))
    candidates = range(1, 29)
    counter = PassCounter(stack.blocks)

    measure = ExactLosses(model, stack, windows)
    measure.measure(range(30), candidates)
    exact, counter.count = counter.count, 0
    reference_measure = ReferenceLosses(model, stack, windows)
    reference_measure.measure(range(30), candidates)
    reference = counter.count

    assert reference == reference_measure.block_passes == 2 * 28 * 29
    assert exact == measure.block_passes == 2 * (28 + 28 * 29 // 2)
    assert exact <= 0.55 * reference


def test_the_model_is_left_as_it_was(device: str) -> None:
    model = tiny_model("llama").to(device)
    model.train()
    model.model.layers[2].eval()
    flags = [module.training for module in model.modules()]
    blocks = list(model.model.layers)
    stack = find_decoder_stack(model)

    class InterruptedError(Exception):
        pass

    def interrupt(pairs: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        ExactLosses(model, stack, TokenWindows(tuple(random_ids(1, 8))), on_progress=interrupt).measure(
            range(6), [1, 2]
        )

    assert [module.training for module in model.modules()] == flags
    assert list(model.model.layers) == blocks
