import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from optimum_sleb import SLEBConfig
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.errors import OutOfMemoryError
from optimum_sleb.runtime.ranks import Ranks
from optimum_sleb.search.exact import ExactLosses
from optimum_sleb.search.method import choose_method
from optimum_sleb.search.reference import ReferenceLosses

from ..families import random_ids, tiny_model
from ..runtime.test_memory import FULL


class InPlaceBlock(LlamaDecoderLayer):
    """Spoils the hidden state that it was given, which the exact search would like to use again."""

    def forward(self, hidden_states, *args, **kwargs):
        output = super().forward(hidden_states, *args, **kwargs)
        return hidden_states.copy_(output)


def choose(model, config=None, num_windows=2):
    stack = find_decoder_stack(model)
    windows = TokenWindows(tuple(random_ids(num_windows, 12)))
    config = config or SLEBConfig(num_blocks_to_remove=1)
    return choose_method(model, stack, windows, range(1, 5), config, Ranks.alone())


def test_takes_the_exact_search_where_it_agrees(device: str) -> None:
    method = choose(tiny_model().to(device))
    assert method.name == "exact"
    assert isinstance(method.losses, ExactLosses)
    assert "agrees" in method.reason


@pytest.mark.parametrize(("num_windows", "name"), [(31, "exact"), (32, "racing")])
def test_auto_races_where_there_are_windows_enough(num_windows: int, name: str) -> None:
    chosen, named = (
        choose(tiny_model(), SLEBConfig(num_blocks_to_remove=1, search=search), num_windows)
        for search in ("auto", name)
    )
    assert (chosen.name, chosen.losses.batch_size) == (name, named.losses.batch_size)
    first, second = (method.measure(range(6), range(1, 5)) for method in (chosen, named))
    assert first.dropped == second.dropped
    assert torch.equal(first.matrix, second.matrix)


@pytest.mark.filterwarnings("error")
def test_takes_the_reference_where_the_recipe_asks_for_it() -> None:
    method = choose(tiny_model(), SLEBConfig(num_blocks_to_remove=1, search="reference"))
    assert method.name == "reference"
    assert "recipe" in method.reason


@pytest.mark.parametrize("search", ["exact", "racing", "reference"])
def test_a_batch_has_no_more_windows_than_there_are(search: str) -> None:
    config = SLEBConfig(num_blocks_to_remove=1, search=search, batch_size=8)
    assert choose(tiny_model(), config, num_windows=3).losses.batch_size == 3
    assert choose(tiny_model(), config, num_windows=9).losses.batch_size == 8


def test_falls_back_to_the_reference_where_the_fast_search_would_be_wrong() -> None:
    model = tiny_model()
    for block in model.model.layers:
        block.__class__ = InPlaceBlock
    with pytest.warns(UserWarning, match="search='exact'.*runs for every candidate.*differs from plain skipping"):
        method = choose(model)
    assert isinstance(method.losses, ReferenceLosses)
    assert "differs from plain skipping" in method.reason
    # And the reference's losses are those of the model without the spoiling.
    losses = method.measure(range(6), [1, 2]).matrix
    honest = tiny_model()
    windows = TokenWindows(tuple(random_ids(2, 12)))
    torch.testing.assert_close(
        losses, ReferenceLosses(honest, find_decoder_stack(honest), windows).measure(range(6), [1, 2]).matrix
    )


@pytest.mark.parametrize("error", FULL, ids=repr)
def test_memory_that_runs_out_does_not_make_the_search_slow(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("optimum_sleb.blocks.runner.BlockRunner.run", fails)
    with pytest.raises(OutOfMemoryError):
        choose(tiny_model())


def test_a_device_that_fails_does_not_make_the_search_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr("optimum_sleb.blocks.runner.BlockRunner.run", fails)
    with pytest.raises(RuntimeError, match="device-side assert"):
        choose(tiny_model())


@pytest.mark.parametrize("search", ["exact", "racing"])
def test_a_family_that_does_not_run_block_by_block_is_told(search: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise AttributeError("no such thing")

    monkeypatch.setattr("optimum_sleb.blocks.runner.BlockRunner.run", fails)
    with pytest.warns(UserWarning, match="do not run one by one.*no such thing.*search='reference'"):
        method = choose(tiny_model(), SLEBConfig(num_blocks_to_remove=1, search=search))
    assert isinstance(method.losses, ReferenceLosses)
