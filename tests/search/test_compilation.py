from collections.abc import Callable
from typing import Any

import pytest
import torch

from optimum_sleb import SLEBConfig
from optimum_sleb.blocks.kernels import UNCOMPILED, nll_of_final_hidden
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.search import compilation
from optimum_sleb.search.compilation import compile_for_search
from optimum_sleb.search.exact import ExactLosses

from ..families import NUM_BLOCKS, random_ids, tiny_model
from ..searching import run_search


def measure_of(num_windows: int = 4) -> ExactLosses:
    model = tiny_model()
    return ExactLosses(model, find_decoder_stack(model), TokenWindows(tuple(random_ids(num_windows, 12))), 2)


@pytest.mark.parametrize(
    ("wanted", "reason"), [("never", "as the recipe says"), ("auto", "it does not pay on cpu")], ids=["never", "auto"]
)
def test_not_compiled(wanted: str, reason: str) -> None:
    result = compile_for_search(measure_of(), SLEBConfig(sparsity=0.5, compile=wanted), range(1, NUM_BLOCKS - 1))
    assert result.kernels is UNCOMPILED
    assert result.seconds is None
    assert reason in result.summary


def test_a_compiler_that_fails_is_told_and_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no C compiler\nfound")

    monkeypatch.setattr(torch, "compile", lambda function, **options: fail)
    result = compile_for_search(measure_of(), SLEBConfig(sparsity=0.5, compile="always"), range(1, NUM_BLOCKS - 1))
    assert result.kernels is UNCOMPILED
    assert result.summary == "not compiled: the compiler fails (no C compiler found)"


def test_kernels_that_compute_something_else_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def a_little_too_large(function: Callable[..., Any], **_: object) -> Callable[..., Any]:
        return (lambda *arguments: function(*arguments) * 1.001) if function is nll_of_final_hidden else function

    monkeypatch.setattr(torch, "compile", a_little_too_large)
    result = compile_for_search(measure_of(), SLEBConfig(sparsity=0.5, compile="always"), range(1, NUM_BLOCKS - 1))
    assert result.kernels is UNCOMPILED
    assert "other losses" in result.summary


@pytest.mark.long
@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize("search", ["exact", "racing"])
def test_the_report_says_what_was_compiled(search: str) -> None:
    model = tiny_model()
    stack = find_decoder_stack(model)
    windows = TokenWindows(tuple(random_ids(4, 12)))
    runs = {
        wanted: run_search(
            model, stack, windows, range(1, 5), SLEBConfig(num_blocks_to_remove=2, search=search, compile=wanted)
        )
        for wanted in ("always", "never")
    }
    assert runs["always"].record.compilation == "compiled blocks and loss"
    assert runs["always"].record.compile_seconds > 0
    assert runs["always"].record.batch_size == 4
    assert [step.block for step in runs["always"].steps] == [step.block for step in runs["never"].steps]


@pytest.mark.long
@pytest.mark.usefixtures("traced_only")
def test_a_batch_larger_than_the_data() -> None:
    model, windows = tiny_model(), TokenWindows(tuple(random_ids(3, 12)))
    config = SLEBConfig(num_blocks_to_remove=1, batch_size=8, compile="always")
    record = run_search(model, find_decoder_stack(model), windows, range(1, 5), config).record
    assert (record.compilation, record.batch_size) == ("compiled blocks and loss", 3)


def test_pays_for_long_searches_only(monkeypatch: pytest.MonkeyPatch) -> None:
    measure, config = measure_of(), SLEBConfig(num_blocks_to_remove=2)
    assert compilation._pays(measure, config, range(1, NUM_BLOCKS - 1)) == (False, False)
    monkeypatch.setattr(TokenWindows, "num_tokens", 10**9)  # as if there were so much text
    assert compilation._pays(measure, config, range(1, NUM_BLOCKS - 1)) == (True, True)
