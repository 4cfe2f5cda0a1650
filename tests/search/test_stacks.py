"""Losses of many shortened stacks at once, against skipping the other blocks in the whole model, one stack each."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from optimum_sleb.blocks.criterion import CROSS_ENTROPY, Criterion
from optimum_sleb.blocks.divergence import Divergence
from optimum_sleb.blocks.offload import offloaded
from optimum_sleb.blocks.stack import DecoderStack, find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.search.candidate_losses import CandidateLosses, Stack
from optimum_sleb.search.cost import shared_block_passes
from optimum_sleb.search.exact import ExactLosses
from optimum_sleb.search.layerwise import LayerwiseLosses
from optimum_sleb.search.reference import ReferenceLosses

from ..families import FAMILIES, NUM_BLOCKS, random_ids, tiny_model
from .test_exact import PassCounter

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOWS = TokenWindows((*random_ids(4, 20), *random_ids(1, 11)))
BATCH_SIZE = 3  # the last batch of a length is smaller


def random_stacks(seed: int, sizes: Sequence[int] | None = None) -> list[Stack]:
    """Different stacks, of any sizes or of one each; some go on where others end."""
    drawn = random.Random(seed)
    sizes = sizes or [drawn.randint(1, NUM_BLOCKS) for _ in range(7)]
    stacks = {tuple(sorted(drawn.sample(range(NUM_BLOCKS), size))) for size in sizes}
    return drawn.sample(sorted(stacks), len(stacks))


STACKS = {
    "of one size": random_stacks(1, [4] * 9),
    "of any size": random_stacks(2),
    "one": [(0, 2, 3, 5)],
    "one that goes on where another ends": [(0, 1), (0, 1, 2, 3), (0,), (0, 1, 2), (3,), (5,)],
    "the whole stack too": [tuple(range(NUM_BLOCKS)), (0, 1, 2, 3, 4), (1, 2, 3, 4, 5)],
}


@torch.no_grad()
def by_skipping(model: PreTrainedModel, stack: DecoderStack, stacks: Sequence[Stack]) -> Tensor:
    """Return the losses, (stacks, windows), of plain forward passes of the model, window by window."""
    rows = []
    for blocks in stacks:
        with stack.skipping(set(range(NUM_BLOCKS)) - set(blocks)):
            losses = [model(ids[None], labels=ids[None], use_cache=False).loss * len(ids) for ids in WINDOWS.windows]
        rows.append(torch.stack(losses))
    return torch.stack(rows)


@contextmanager
def measured_by(
    kind: str, model: PreTrainedModel, stack: DecoderStack, criterion: Criterion = CROSS_ENTROPY
) -> Iterator[CandidateLosses]:
    criterion.prepare(model, stack, WINDOWS.batches(1))
    if kind == "offloaded":
        with offloaded(model, stack, torch.device("cpu")) as there:
            yield LayerwiseLosses(model, there, WINDOWS, BATCH_SIZE, criterion=criterion, windows_at_a_time=2)
    else:
        of_kind = {"exact": ExactLosses, "reference": ReferenceLosses}[kind]
        yield of_kind(model, stack, WINDOWS, BATCH_SIZE, criterion=criterion)


@pytest.mark.parametrize("family", [pytest.param(name, marks=pytest.mark.long) for name in FAMILIES])
@pytest.mark.parametrize("kind", ["exact", "offloaded", "reference"])
def test_equals_skipping_in_the_whole_model(kind: str, family: str) -> None:
    model = tiny_model(family)
    stack = find_decoder_stack(model)
    for stacks in STACKS.values():
        expected = by_skipping(model, stack, stacks)
        with measured_by(kind, model, stack) as losses:
            torch.testing.assert_close(losses.measure_stacks(stacks).matrix, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["exact", "offloaded", "reference"])
def test_by_the_divergence_from_the_dense_model(kind: str) -> None:
    model = tiny_model("llama")
    stack = find_decoder_stack(model)
    stacks = STACKS["of one size"]
    expected = []
    with torch.no_grad():
        for blocks in stacks:
            for ids in WINDOWS.windows:
                dense = model(ids[None]).logits[0, :-1].log_softmax(-1)
                with stack.skipping(set(range(NUM_BLOCKS)) - set(blocks)):
                    other = model(ids[None]).logits[0, :-1].log_softmax(-1)
                expected.append((dense.exp() * (dense - other)).sum(dim=-1).mean() * len(ids))
    with measured_by(kind, model, stack, Divergence()) as losses:
        measured = losses.measure_stacks(stacks).matrix
    torch.testing.assert_close(measured, torch.stack(expected).view(len(stacks), -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stacks", STACKS.values(), ids=STACKS)
@pytest.mark.parametrize("kind", ["exact", "offloaded", "reference"])
def test_shared_blocks_run_once(kind: str, stacks: list[Stack]) -> None:
    model = tiny_model("llama")
    stack = find_decoder_stack(model)
    counter = PassCounter(stack.blocks)
    with measured_by(kind, model, stack) as losses:
        losses.windows = TokenWindows(tuple(random_ids(6, 8)))
        if isinstance(losses, LayerwiseLosses):
            losses.windows_at_a_time = BATCH_SIZE
        losses.measure_stacks(stacks)
    passes = sum(map(len, stacks)) if kind == "reference" else shared_block_passes(stacks)
    assert counter.count * BATCH_SIZE == losses.block_passes == passes * 6
    assert losses.head_passes == len(stacks) * 6


@pytest.mark.parametrize("kind", ["exact", "offloaded", "reference"])
def test_a_greedy_step_gives_the_same_bits(kind: str) -> None:
    model = tiny_model("llama")
    alive, candidates = [0, 1, 3, 4, 5], [1, 3, 4]
    stacks = [tuple(block for block in alive if block != one) for one in candidates]
    with measured_by(kind, model, find_decoder_stack(model)) as losses:
        step = losses.measure(alive, candidates)
        named = losses.measure_stacks(stacks, names=candidates)
        placed = losses.measure_stacks(stacks)
    assert list(named.losses) == candidates
    assert list(placed.losses) == [0, 1, 2]
    assert step.matrix.equal(named.matrix)
    assert step.matrix.equal(placed.matrix)


def test_what_is_measured_with_others_does_not_change_the_bits() -> None:
    model = tiny_model("llama")
    stacks = STACKS["of one size"]
    for kind in ("exact", "offloaded"):
        with measured_by(kind, model, find_decoder_stack(model)) as losses:
            together = losses.measure_stacks(stacks).matrix
            alone = torch.cat([losses.measure_stacks([one]).matrix for one in stacks])
            backwards = losses.measure_stacks(stacks[::-1]).matrix.flip(0)
        assert together.equal(alone)
        assert together.equal(backwards)


class Brought(Divergence):
    """Counts how often the dense model's states are brought to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self._before = 0, torch.empty(0)

    def states_of(self, ids: Tensor, device: torch.device) -> Tensor:
        states = super().states_of(ids, device)
        self.count += states is not self._before
        self._before = states
        return states


@pytest.mark.parametrize(("kind", "parts"), [("exact", 4), ("offloaded", 6), ("reference", 4)])
def test_the_states_of_the_dense_model_are_brought_once(kind: str, parts: int) -> None:
    model, stacks, criterion = tiny_model("llama"), STACKS["of one size"], Brought()
    with measured_by(kind, model, find_decoder_stack(model), criterion) as losses:
        losses.windows = TokenWindows((*WINDOWS.windows, *random_ids(3, 11, seed=2)))
        criterion.prepare(model, losses.stack, losses.windows.batches(1))
        together = losses.measure_stacks(stacks).matrix
        assert criterion.count == parts
        alone = torch.cat([losses.measure_stacks([one]).matrix for one in stacks])
    assert together.equal(alone)
