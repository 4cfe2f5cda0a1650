"""A float16 model that overflows is noticed, although the search computes in float32."""

from typing import Any

import pytest
import torch

from optimum_sleb import SLEBConfig, SLEBPruner
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.errors import NonFiniteLossError
from optimum_sleb.runtime.ranks import Ranks
from optimum_sleb.search import float16
from optimum_sleb.search.compensating import compensate_earlier_removals
from optimum_sleb.search.float16 import check_float16

from ..families import NUM_BLOCKS, overflowing_model, random_ids, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")
TOKEN = 1  # neither in the probe nor among random ids
IDS = random_ids(6, 20)
IDS[3, 11] = TOKEN
WINDOWS = TokenWindows(tuple(IDS))
NAMED = r"The loss of window 3 is (nan|inf) {} in float16.*dtype='bfloat16' or 'float32'"
BEFORE = NAMED.format("before any block is removed")


@pytest.mark.long
@pytest.mark.reliability(
    "a model kept in float16 that overflows on one window, searched in float32",
    lost="nothing; refused before the search, with the window and the remedy",
)
@pytest.mark.parametrize("search", ["exact", "racing", "reference"])
@pytest.mark.parametrize("place", [{}, {"device": "cpu", "offload": "cpu"}], ids=["whole", "offloaded"])
def test_an_overflow_is_told_before_the_search(search: str, place: dict[str, Any]) -> None:
    if place and search == "reference":
        pytest.skip("refused: the whole model would have to fit")
    model = overflowing_model(TOKEN)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(NonFiniteLossError, match=BEFORE):
        SLEBPruner(model).prune(SLEBConfig(num_blocks_to_remove=2, search=search), calibration=list(IDS), **place)
    assert model.state_dict().keys() == before.keys()
    assert all(
        value.equal(before[name]) and value.dtype == torch.float16 for name, value in model.state_dict().items()
    )


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_wider_precisions_hold_it(dtype: torch.dtype) -> None:
    check_float16(overflowing_model(TOKEN, dtype), find_decoder_stack(tiny_model()), WINDOWS, ranks=Ranks.alone())
    SLEBPruner(overflowing_model(TOKEN, dtype)).prune(SLEBConfig(num_blocks_to_remove=1), calibration=list(IDS))


def test_what_is_removed_does_not_count() -> None:
    model = overflowing_model(TOKEN, block=2)
    stack = find_decoder_stack(model)
    check_float16(model, stack, WINDOWS, ranks=Ranks.alone(), removed={2}, batch_size=4)
    with pytest.raises(NonFiniteLossError, match=NAMED.format(r"without the removed blocks \(1\)")):
        check_float16(model, stack, WINDOWS, ranks=Ranks.alone(), removed={3}, batch_size=4)


def test_weights_that_compensate_count() -> None:
    model = tiny_model(dtype=torch.float16)
    stack = find_decoder_stack(model)
    name = "model.layers.1.mlp.down_proj.weight"
    before = model.get_parameter(name).detach().clone()
    large = {name: torch.full_like(before, 60000)}
    with pytest.raises(NonFiniteLossError, match="The loss of window 0 is nan without"):
        check_float16(model, stack, WINDOWS, ranks=Ranks.alone(), removed={2}, weights=large)
    assert model.get_parameter(name).equal(before)


@pytest.mark.long
@pytest.mark.parametrize("compensate", ["no", "during", "after"])
@pytest.mark.parametrize("place", [{}, {"device": "cpu", "offload": "cpu"}], ids=["whole", "offloaded"])
def test_what_comes_out_of_a_search_is_looked_at(
    compensate: str, place: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[dict[str, Any]] = []

    def check(*arguments: Any, **options: Any) -> None:
        check_float16(*arguments, **options)
        looked_at.append(options)

    monkeypatch.setattr(float16, "check_float16", check)
    pruner = SLEBPruner(tiny_model(dtype=torch.float16))
    pruner.prune(SLEBConfig(num_blocks_to_remove=2, compensate=compensate), calibration=list(IDS), **place)
    first, last = looked_at
    assert "removed" not in first
    assert last["removed"] == set(pruner.report.removed_blocks)
    assert (len(last["weights"]) > 0) == (compensate != "no")
    assert pruner.model.dtype == torch.float16
    assert len(pruner.blocks) == NUM_BLOCKS - 2


def test_only_once_blocks_are_gone_it_overflows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is left as it was, with all its blocks."""
    pruner = SLEBPruner(tiny_model(dtype=torch.float16))

    def check(*arguments: Any, removed: Any = (), **options: Any) -> None:
        if removed:
            raise NonFiniteLossError("too large")

    monkeypatch.setattr(float16, "check_float16", check)
    with pytest.raises(NonFiniteLossError, match="too large"):
        pruner.prune(SLEBConfig(num_blocks_to_remove=1), calibration=list(IDS))
    assert len(pruner.blocks) == len(pruner.model.model.layers) == NUM_BLOCKS


def test_repeating_a_compensation() -> None:
    model = overflowing_model(TOKEN)
    config = SLEBConfig(num_blocks_to_remove=1, compensate="during")
    with pytest.raises(NonFiniteLossError, match="window 3"):
        compensate_earlier_removals(
            model, find_decoder_stack(model), WINDOWS, config, [(3,)], range(1, NUM_BLOCKS - 1)
        )
