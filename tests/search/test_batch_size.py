import pytest
import torch

from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.runtime import memory
from optimum_sleb.search import batch_size
from optimum_sleb.search.batch_size import choose_batch_size
from optimum_sleb.search.exact import ExactLosses

from ..families import random_ids, tiny_model


@pytest.mark.parametrize(
    ("num_windows", "elements", "limit", "expected"),
    [
        (12, 32 * 20 * 5, None, 4),  # 5 fit, and 4 leave nothing over
        (13, 32 * 20 * 5, None, 5),  # nothing near divides 13
        (3, 32 * 20 * 100, None, 3),
        (12, 32 * 20 * 100, 4, 4),
        (12, 1, None, 1),
    ],
)
def test_enough_elements_and_no_remainder(
    monkeypatch: pytest.MonkeyPatch, num_windows: int, elements: int, limit: int | None, expected: int
) -> None:
    monkeypatch.setattr(batch_size, "CPU_ELEMENTS", elements)
    model = tiny_model()  # 32 wide
    measure = ExactLosses(model, find_decoder_stack(model), TokenWindows(tuple(random_ids(num_windows, 20))))
    assert choose_batch_size(measure, 4, limit) == expected
    assert measure.block_passes == 0


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_no_more_than_fits_the_memory_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model().to("cuda")
    measure = ExactLosses(model, find_decoder_stack(model), TokenWindows(tuple(random_ids(64, 20))))
    assert choose_batch_size(measure, 4) == 64
    (window,) = batch_size._memory_of(measure, 4, measure.windows.windows[0]).values()
    monkeypatch.setattr(memory, "memory_left", lambda device: 12 * window)  # of which some is spared
    assert choose_batch_size(measure, 4) == 8
