import pytest
import torch

from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.errors import CalibrationError


def test_stream_is_cut_into_whole_windows() -> None:
    windows = TokenWindows.from_stream(torch.arange(11), length=4)
    assert [window.tolist() for window in windows.windows] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert windows.num_tokens == 8


def test_bos_takes_the_first_place_of_every_window() -> None:
    windows = TokenWindows.from_stream(torch.arange(10, 18), length=4, bos_id=1, max_windows=2)
    assert [window.tolist() for window in windows.windows] == [[1, 10, 11, 12], [1, 13, 14, 15]]


def test_too_short_a_stream_says_how_many_tokens_it_had() -> None:
    with pytest.raises(CalibrationError, match="The text has 3 tokens, but one window takes 4 tokens"):
        TokenWindows.from_stream(torch.arange(3), length=4)
    with pytest.raises(CalibrationError, match=r"The text has 2 tokens, but one window takes 3 tokens \(and BOS\)"):
        TokenWindows.from_stream(torch.arange(2), length=4, bos_id=1)


def test_rows_keep_their_length() -> None:
    rows = [torch.arange(5), torch.arange(1), torch.arange(3), torch.arange(4)]
    windows = TokenWindows.from_rows(rows, max_windows=2)
    assert [len(window) for window in windows.windows] == [5, 3]
    with pytest.raises(CalibrationError, match="no row of at least 2 tokens"):
        TokenWindows.from_rows([torch.arange(1)])


def test_batches_hold_windows_of_one_length_and_cover_all() -> None:
    windows = TokenWindows(tuple(torch.arange(length) for length in (4, 4, 4, 6, 4)))
    batches = [(batch.span, batch.ids.shape) for batch in windows.batches(2)]
    assert batches == [(slice(0, 2), (2, 4)), (slice(2, 3), (1, 4)), (slice(3, 4), (1, 6)), (slice(4, 5), (1, 4))]


def test_fingerprint_tells_data_apart() -> None:
    one = TokenWindows.from_stream(torch.arange(8), length=4)
    assert one.fingerprint == TokenWindows.from_stream(torch.arange(8), length=4).fingerprint
    assert one.fingerprint != TokenWindows.from_stream(torch.arange(8), length=8).fingerprint
    assert one.fingerprint != TokenWindows.from_stream(torch.arange(1, 9), length=4).fingerprint


@pytest.mark.parametrize("bad", [-1, 10])
def test_tokens_outside_the_vocabulary(bad: int) -> None:
    windows = TokenWindows((torch.tensor([1, 2]), torch.tensor([3, bad])))
    with pytest.raises(CalibrationError, match=f"Token id {bad} in window 1 lies outside"):
        windows.check_vocabulary(10)
