import torch
import torch.nn.functional as F

from optimum_sleb.losses import window_losses


def test_equals_cross_entropy_times_length(device: str) -> None:
    torch.manual_seed(0)
    ids = torch.randint(11, (3, 7), device=device)
    logits = torch.randn(3, 7, 11, device=device)
    losses = window_losses(lambda start, stop: logits[:, start:stop], ids, vocab_size=11)
    expected = torch.stack([F.cross_entropy(logits[row, :-1], ids[row, 1:]) * 7 for row in range(3)])
    torch.testing.assert_close(losses, expected)


def test_half_precision_logits_are_summed_in_float32() -> None:
    # 2047 tokens of 0.69: a sum in bfloat16 would stall at 256.
    ids = torch.zeros(1, 2048, dtype=torch.long)
    logits = torch.zeros(1, 2048, 2, dtype=torch.bfloat16)
    losses = window_losses(lambda start, stop: logits[:, start:stop], ids, vocab_size=2)
    torch.testing.assert_close(losses, torch.tensor([2048 * 0.6931472]))


def test_never_asks_for_more_logits_than_fit(monkeypatch) -> None:
    monkeypatch.setattr("optimum_sleb.losses.MAX_LOGITS", 100)
    ids = torch.zeros(2, 30, dtype=torch.long)
    asked = []

    def logits_between(start: int, stop: int) -> torch.Tensor:
        asked.append((start, stop))
        return torch.zeros(2, stop - start, 10)

    window_losses(logits_between, ids, vocab_size=10)
    assert asked == [(0, 5), (5, 10), (10, 15), (15, 20), (20, 25), (25, 29)]  # the last token predicts nothing
