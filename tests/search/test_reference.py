"""The reference, against the published procedure written out once more on an ordinary model."""

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from optimum_sleb.blocks.forward import losses_of
from optimum_sleb.blocks.losses import next_tokens
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.search.greedy import Refusals, greedy_removals
from optimum_sleb.search.reference import ReferenceLosses

from ..families import NUM_BLOCKS, random_ids


def published_loop(model: PreTrainedModel, windows: torch.Tensor, num_remove: int) -> tuple[list[int], list[float]]:
    """Physically delete, measure, put back. Right for Llama, whose blocks do not ask where they stand."""
    layers = list(model.model.layers)
    alive, removed, sums = list(range(len(layers))), [], []
    for _ in range(num_remove):
        best, best_sum = None, float("inf")
        for candidate in alive[1:-1]:
            model.model.layers = torch.nn.ModuleList(layers[block] for block in alive if block != candidate)
            total = 0.0
            for window in windows:
                with torch.no_grad():
                    logits = model(window[None], use_cache=False).logits
                total += F.cross_entropy(logits[0, :-1], window[1:]).item() * len(window)
            if total < best_sum:
                best, best_sum = candidate, total
        alive.remove(best)
        removed.append(best)
        sums.append(best_sum)
    model.model.layers = torch.nn.ModuleList(layers)
    return removed, sums


def test_equals_the_published_loop(llama: PreTrainedModel) -> None:
    ids = random_ids(4, 24)
    removed, sums = published_loop(llama, ids, 3)

    stack = find_decoder_stack(llama)
    measure = ReferenceLosses(llama, stack, TokenWindows(tuple(ids)), batch_size=2)
    search = greedy_removals(
        measure.measure,
        NUM_BLOCKS,
        candidates=range(1, NUM_BLOCKS - 1),
        refusals=Refusals(lambda gone: None),
    )
    steps = [next(search) for _ in range(3)]

    assert [step.block for step in steps] == removed
    torch.testing.assert_close([step.loss for step in steps], sums)


def test_loss_is_mean_cross_entropy_times_length(llama: PreTrainedModel) -> None:
    ids = random_ids(2, 10)
    with torch.no_grad():
        losses = losses_of(llama, ids, next_tokens(ids))
        expected = torch.stack([llama(row[None], labels=row[None]).loss * 10 for row in ids])
    torch.testing.assert_close(losses, expected)
