"""The divergence in parts is the divergence; that of the likeliest tokens is a bound of it."""

import pytest
import torch
import torch.nn.functional as F

from optimum_sleb.healing import divergence as module
from optimum_sleb.healing.divergence import divergence, top_divergence


def reference(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    given, wanted = student.log_softmax(-1), teacher.log_softmax(-1)
    return F.kl_div(given, wanted, log_target=True, reduction="sum")


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(2 * torch.randn(11, 32, generator=generator) for _ in range(2))


@pytest.mark.parametrize("most", [2**26, 64])
def test_in_parts_with_its_gradient(pair, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LOGITS", most)
    student, teacher = pair
    one, other = student.clone().requires_grad_(), student.clone().requires_grad_()
    found, expected = divergence(one, teacher), reference(other, teacher)
    assert torch.allclose(found, expected)
    for loss in (found, expected):
        loss.backward()
    assert torch.allclose(one.grad, other.grad, atol=1e-6)


@pytest.mark.parametrize("count", [1, 8, 32])
def test_of_the_likeliest_tokens(pair, count: int) -> None:
    student, teacher = pair
    values, tokens = teacher.log_softmax(-1).topk(count)
    one, other = student.clone().requires_grad_(), student.clone().requires_grad_()
    found, expected = top_divergence(one, values, tokens), reference(other, teacher)
    assert 0 < found <= expected + 1e-5
    if count == 32:
        assert torch.allclose(found, expected)
        for loss in (found, expected):
            loss.backward()
        assert torch.allclose(one.grad, other.grad, atol=1e-6)


def test_a_teacher_that_is_imitated_in_full_loses_nothing(pair) -> None:
    student, _ = pair
    values, tokens = student.log_softmax(-1).topk(4)
    assert top_divergence(student, values, tokens).abs() < 1e-4
