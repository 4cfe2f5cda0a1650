"""Fits against least squares on the tokens themselves."""

import pytest
import torch

from optimum_sleb.compensation.maps import fit_channel_scales, fit_matrix, fit_output_map, fit_scale
from optimum_sleb.compensation.moments import WEIGHTINGS, Moments

TOKENS, FEATURES, WIDTH = 200, 12, 8


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(TOKENS, FEATURES, generator=generator)
    z = torch.randn(TOKENS, WIDTH, generator=generator)
    weights = torch.rand(TOKENS, generator=generator) + 0.1
    matrix = torch.randn(FEATURES, WIDTH, generator=generator, dtype=torch.float64)
    return x, z, weights, matrix


def moments_of(x: torch.Tensor, z: torch.Tensor, weights: torch.Tensor) -> Moments:
    moments = Moments.empty(x.shape[1], z.shape[1], x.device)
    for part in torch.arange(len(x)).split(70):  # batch by batch
        moments.add(x[part], z[part], weights[part])
    return moments


def least_squares(x: torch.Tensor, z: torch.Tensor, weights: torch.Tensor, pull: torch.Tensor, strength: float):
    """Weighted least squares with rows of its own for the ridge: the slow, obvious way."""
    root = weights.double().sqrt()[:, None]
    rows = torch.cat([x.double() * root, torch.eye(x.shape[1], dtype=torch.float64) * strength**0.5])
    wanted = torch.cat([z.double() * root, pull * strength**0.5])
    return torch.linalg.lstsq(rows, wanted).solution


@pytest.mark.parametrize("ridge", [1e-3, 1e-1])
def test_refit(data, ridge: float) -> None:
    x, z, weights, matrix = data
    strength = ridge * (weights[:, None] * x**2).sum(dim=0).double().mean().item()
    expected = least_squares(x, z, weights, matrix, strength)
    torch.testing.assert_close(fit_matrix(moments_of(x, z, weights), matrix, ridge), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ridge", [1e-3, 1e-1])
def test_map_behind_the_matrix(data, ridge: float) -> None:
    x, z, weights, matrix = data
    output = x.double() @ matrix
    strength = ridge * (weights[:, None] * output**2).sum(dim=0).mean().item()
    expected = matrix @ least_squares(output, z, weights, torch.eye(WIDTH, dtype=torch.float64), strength)
    torch.testing.assert_close(
        fit_output_map(moments_of(x, z, weights), matrix, ridge), expected, rtol=1e-4, atol=1e-5
    )


def test_factors(data) -> None:
    x, z, weights, matrix = data
    output = x.double() @ matrix
    weighted = output * weights[:, None]
    factors = (weighted * z).sum(dim=0) / (weighted * output).sum(dim=0)
    moments = moments_of(x, z, weights)
    torch.testing.assert_close(fit_channel_scales(moments, matrix, 0.0), matrix * factors, rtol=1e-4, atol=1e-6)
    factor = (weighted * z).sum() / (weighted * output).sum()
    torch.testing.assert_close(fit_scale(moments, matrix), matrix * factor, rtol=1e-4, atol=1e-6)


def test_what_the_tokens_say_nothing_of_stays(data) -> None:
    x, z, weights, matrix = data
    x[:, 3] = 0
    torch.testing.assert_close(fit_matrix(moments_of(x, z, weights), matrix, 1e-2)[3], matrix[3])


def test_no_tokens_determine_nothing() -> None:
    empty = Moments.empty(FEATURES, WIDTH, torch.device("cpu"))
    assert fit_matrix(empty, torch.zeros(FEATURES, WIDTH, dtype=torch.float64), 1e-2).isnan().all()


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_a_sink_counts_for_less_than_its_size(name: str) -> None:
    norms = torch.tensor([5000.0, 2.0, 3.0])
    first = torch.tensor([True, False, False])
    weights = WEIGHTINGS[name](norms, first)
    assert weights[0] * norms[0] ** 2 <= weights[1:].max() * norms[0] * norms[1:].max()
