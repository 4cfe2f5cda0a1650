"""The dense model measured by what its divergence keeps of it, against a pass through all of its blocks."""

from dataclasses import replace

import pytest
import torch

from optimum_sleb.blocks.criterion import CROSS_ENTROPY
from optimum_sleb.blocks.divergence import Divergence
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.search.dense_losses import DenseLosses, of_dense
from optimum_sleb.search.exact import ExactLosses
from optimum_sleb.search.layerwise import LayerwiseLosses
from optimum_sleb.search.reference import ReferenceLosses

from ..architectures.tiny import tiny_model as tiny_of
from ..families import FAMILIES, random_ids, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOWS = TokenWindows((*random_ids(5, 20), *random_ids(2, 11)))


@pytest.mark.parametrize("kind", [ExactLosses, LayerwiseLosses, ReferenceLosses])
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "gemma3n_text"])
def test_equals_a_pass_through_all_blocks(family: str, kind: type) -> None:
    model = tiny_model(family) if family in FAMILIES else tiny_of(family)
    stack, criterion = find_decoder_stack(model), Divergence()
    criterion.prepare(model, stack, WINDOWS.batches(1))
    losses = kind(model, stack, WINDOWS, 3, criterion=criterion)
    whole = range(len(stack))
    assert of_dense(losses).losses_of(whole).abs().max() < 1e-3
    by_loss = replace(losses, criterion=CROSS_ENTROPY)
    found = replace(of_dense(losses), criterion=CROSS_ENTROPY)
    torch.testing.assert_close(found.losses_of(whole), by_loss.losses_of(whole))
    assert isinstance(found, DenseLosses)
    assert found.batch_size == (1 if kind is LayerwiseLosses else 3)
    assert of_dense(by_loss) is by_loss  # nothing is kept


def test_what_is_not_finite_is_found() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.embed_tokens.weight[WINDOWS.windows[2][4]] = torch.nan
    stack, criterion = find_decoder_stack(model), Divergence()
    criterion.prepare(model, stack, WINDOWS.batches(1))
    of_windows = of_dense(ExactLosses(model, stack, WINDOWS, 3, criterion=criterion)).losses_of(range(len(stack)))
    assert not of_windows[2].isfinite()
