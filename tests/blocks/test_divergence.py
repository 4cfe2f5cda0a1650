"""The divergence from the dense model, against the same by whole logits of both models."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from optimum_sleb import SLEBConfig
from optimum_sleb.blocks.divergence import Divergence
from optimum_sleb.blocks.forward import evaluating, logits_of, vocab_size_of
from optimum_sleb.blocks.kernels import Kernels
from optimum_sleb.blocks.losses import kl_of_positions, sums_of_positions, window_losses
from optimum_sleb.blocks.runner import BlockRunner, Stream, open_runner
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.search.exact import ExactLosses
from optimum_sleb.search.reference import ReferenceLosses

from ..architectures.tiny import tiny_model as tiny_of
from ..families import FAMILIES, NUM_BLOCKS, random_ids, tiny_model
from ..searching import run_search

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = random_ids(5, 20)


def by_hand(model: PreTrainedModel, removed: set[int], windows: TokenWindows) -> Tensor:
    """The published mean of a window, with the divergence in the place of the cross-entropy."""
    losses = []
    for number, window in enumerate(windows.windows):
        with evaluating(model):
            dense = logits_of(model, window[None])[0].double().log_softmax(-1)
            with find_decoder_stack(model).skipping(removed):
                short = logits_of(model, window[None])[0].double().log_softmax(-1)
        counted = torch.ones(len(window), dtype=torch.bool)
        counted[-1] = False
        if windows.targets is not None:
            counted = windows.targets[number] >= 0
        divergence = (dense.exp() * (dense - short)).sum(dim=-1)[counted]
        losses.append(divergence.mean() * (len(divergence) + 1))
    return torch.stack(losses).float()


@pytest.mark.parametrize("labels", [False, True], ids=["all tokens", "labels"])
@pytest.mark.parametrize("family", [*FAMILIES, "gemma3n_text"])
def test_equals_whole_logits(family: str, labels: bool) -> None:
    model = tiny_model(family) if family in FAMILIES else tiny_of(family)
    targets = torch.full_like(IDS, -100)
    targets[:, 4:9] = IDS[:, 5:10]
    windows = TokenWindows(tuple(IDS), tuple(targets) if labels else None)
    stack, criterion = find_decoder_stack(model), Divergence()
    criterion.prepare(model, stack, windows.batches(2))
    expected = by_hand(model, {2}, windows)
    alive = [block for block in range(len(stack)) if block != 2]
    few = Kernels(max_logits=2 * 3 * 3 * vocab_size_of(model))  # three positions of three windows at a time
    for losses in (
        ExactLosses(model, stack, windows, 3, criterion=criterion, kernels=few),
        ReferenceLosses(model, stack, windows, 2, criterion=criterion),
    ):
        torch.testing.assert_close(losses.losses_of(alive), expected, rtol=1e-3, atol=1e-5)
        assert losses.losses_of(range(len(stack))).abs().max() < 1e-3  # of the dense model from itself


@pytest.mark.parametrize("search", ["exact", "racing", "reference"])
def test_every_search_lowers_it(search: str) -> None:
    windows, model = TokenWindows(tuple(IDS)), tiny_model()
    config = SLEBConfig(num_blocks_to_remove=2, search=search, criterion="kl")
    criterion = Divergence()
    steps = run_search(
        model, find_decoder_stack(model), windows, range(1, NUM_BLOCKS - 1), config, criterion=criterion
    ).steps
    removed: set[int] = set()
    for step in steps:
        sums = {
            block: by_hand(model, {*removed, block}, windows).sum().item()
            for block in range(1, NUM_BLOCKS - 1)
            if block not in removed
        }
        assert step.block == min(sums, key=sums.__getitem__)
        assert step.loss == pytest.approx(sums[step.block], rel=1e-3)
        removed.add(step.block)


@pytest.mark.parametrize("way", ["fail", "differ"])
def test_a_family_whose_blocks_do_not_run_one_by_one(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told apart from its dense model by its own forward."""
    run = BlockRunner.run

    def run_otherwise(runner: BlockRunner, stream: Stream, blocks: Iterable[int]) -> Stream:
        if way == "fail":
            raise AttributeError("no such thing")
        found = run(runner, stream, blocks)
        return replace(found, hidden=found.hidden + 1)

    monkeypatch.setattr(BlockRunner, "run", run_otherwise)
    windows, model = TokenWindows(tuple(IDS)), tiny_model()
    config = SLEBConfig(num_blocks_to_remove=1, criterion="kl")
    with pytest.warns(UserWarning, match="the whole model runs for every candidate"):
        (step,) = run_search(
            model, find_decoder_stack(model), windows, range(1, NUM_BLOCKS - 1), config, criterion=Divergence()
        ).steps
    expected = {block: by_hand(model, {block}, windows).sum().item() for block in range(1, NUM_BLOCKS - 1)}
    assert step.losses == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("family", ["llama", "gemma3", "bloom", "gemma3n_text"])
def test_the_dense_model_by_its_blocks_and_as_a_whole(family: str) -> None:
    model = tiny_model(family) if family in FAMILIES else tiny_of(family)
    stack, windows = find_decoder_stack(model), TokenWindows(tuple(IDS))
    ways = [Divergence(), Divergence()]
    for criterion, by_block in zip(ways, (True, False), strict=True):
        criterion.prepare(model, stack, windows.batches(2), by_block=by_block)
    one, other = (criterion.states_of(IDS, IDS.device) for criterion in ways)
    assert torch.equal(one, other)


class Sizes(TorchDispatchMode):
    """Keeps the most elements of a tensor over the vocabulary that was made, by precision."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.most: dict[torch.dtype, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and made.shape[-1:] == (self.vocab_size,):
            self.most[made.dtype] = max(self.most.get(made.dtype, 0), made.numel())
        return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", ["llama", "gemma3", "gemma3n_text"])
def test_the_whole_model_has_the_same_losses_in_parts(family: str, dtype: torch.dtype) -> None:
    model = (tiny_model(family) if family in FAMILIES else tiny_of(family)).to(dtype)
    stack, (batch,) = find_decoder_stack(model), TokenWindows(tuple(IDS)).batches(len(IDS))
    positions = len(IDS) * vocab_size_of(model)  # logits at one position of all windows
    whole, parts = Divergence(), Divergence(max_logits=2 * 3 * positions)  # three positions at a time
    for criterion in (whole, parts):
        criterion.prepare(model, stack, [batch])
    with evaluating(model), stack.skipping({2}):
        logits = logits_of(model, batch.ids)
        with open_runner(model, stack) as runner:
            dense = runner.logits(whole.states_of(batch.ids, batch.ids.device), batch.ids)
        expected = window_losses(sums_of_positions(kl_of_positions(dense, logits), batch.targets), batch.targets)
        with Sizes(vocab_size_of(model)) as sizes:
            found = parts.of_model(model, batch)
        assert torch.equal(whole.of_model(model, batch), expected)
    assert torch.equal(found, expected)
    if dtype != torch.float32:  # the model itself holds its logits whole, in its precision
        assert sizes.most[dtype] == IDS.shape[1] * positions
        assert sizes.most[torch.float32] <= 3 * positions
