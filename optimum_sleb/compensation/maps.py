"""Fits of a matrix, (features, width) in float64; `ridge` is a share of the mean square of what the fit multiplies."""

import torch
from torch import Tensor

from .moments import Moments


def fit_matrix(moments: Moments, matrix: Tensor, ridge: float) -> Tensor:
    """Return the M that minimises sum_t w_t |x_t M - z_t|^2 + ridge s |M - matrix|^2, with s the mean diagonal of xx.

    The ridge pulls towards the module's own matrix. The result is NaN where the moments do not determine it.
    """
    strength = ridge * moments.xx.diagonal().mean()
    identity = torch.eye(len(moments.xx), dtype=torch.float64, device=moments.xx.device)
    solution, failed = torch.linalg.solve_ex(moments.xx + strength * identity, moments.xz + strength * matrix)
    return solution.masked_fill(failed > 0, torch.nan)


def fit_output_map(moments: Moments, matrix: Tensor, ridge: float) -> Tensor:
    """Return matrix @ T with the best T, (width, width); the ridge pulls T to the identity."""
    identity = torch.eye(matrix.shape[1], dtype=torch.float64, device=matrix.device)
    return matrix @ fit_matrix(moments.of_output(matrix), identity, ridge)


def fit_channel_scales(moments: Moments, matrix: Tensor, ridge: float) -> Tensor:
    """Return the matrix with the best factor for each output channel; the ridge pulls the factors to 1."""
    output = moments.of_output(matrix)
    squares, products = output.xx.diagonal(), output.xz.diagonal()
    strength = ridge * squares.mean()
    return matrix * ((products + strength) / (squares + strength))


def fit_scale(moments: Moments, matrix: Tensor) -> Tensor:
    """Return the matrix times the best single factor."""
    output = moments.of_output(matrix)
    return matrix * (output.xz.trace() / output.xx.trace())
