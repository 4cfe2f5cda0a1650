import pytest
import torch
import torch.nn.functional as F

from optimum_sleb.blocks.losses import IGNORED, next_tokens, nll_sums, position_slices, window_losses


def losses_in_parts(logits: torch.Tensor, targets: torch.Tensor, positions: int) -> torch.Tensor:
    parts = zip(logits.split(positions, dim=1), targets.split(positions, dim=1), strict=True)
    return window_losses(sum(nll_sums(*part) for part in parts), targets)


@pytest.mark.parametrize("positions", [1, 3, 7, 100])
def test_equals_cross_entropy_times_length(positions: int, device: str) -> None:
    torch.manual_seed(0)
    ids = torch.randint(11, (3, 7), device=device)
    logits = torch.randn(3, 7, 11, device=device)
    expected = torch.stack([F.cross_entropy(logits[row, :-1], ids[row, 1:]) * 7 for row in range(3)])
    torch.testing.assert_close(losses_in_parts(logits, next_tokens(ids), positions), expected)


def test_ignored_positions_count_nothing() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 6, 11)
    targets = torch.tensor([[IGNORED, 4, IGNORED, 7, 2, IGNORED]])
    scored = F.cross_entropy(logits[0, [1, 3, 4]], torch.tensor([4, 7, 2]))
    # Three predictions: what a window of four tokens would have.
    torch.testing.assert_close(losses_in_parts(logits, targets, 4), scored[None] * 4)


def test_half_precision_logits_are_summed_in_float32() -> None:
    # 2047 tokens of 0.69: a sum in bfloat16 would stall at 256.
    ids = torch.zeros(1, 2048, dtype=torch.long)
    logits = torch.zeros(1, 2048, 2, dtype=torch.bfloat16)
    torch.testing.assert_close(losses_in_parts(logits, next_tokens(ids), 2048), torch.tensor([2048 * 0.6931472]))


@pytest.mark.parametrize(
    ("batch", "length", "expected"),
    [(1, 30, 10), (2, 30, 5), (1, 29, 10), (20, 30, 1), (1, 8, 8)],
    ids=["divides", "batch", "prime length", "no room", "short"],
)
def test_never_asks_for_more_logits_than_fit(batch: int, length: int, expected: int) -> None:
    parts = position_slices(torch.zeros(batch, length), vocab_size=10, max_logits=100)
    assert parts[0] == slice(0, expected)
    assert [number for part in parts for number in range(length)[part]] == list(range(length))


def test_next_tokens_do_not_change_the_ids() -> None:
    ids = torch.tensor([[5, 6], [7, 8]])
    assert next_tokens(ids).tolist() == [[6, IGNORED], [8, IGNORED]]
    assert ids.tolist() == [[5, 6], [7, 8]]
