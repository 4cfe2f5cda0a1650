"""Matrices that bring what a block writes close to what the block behind the gap expects."""

import torch
from torch import Tensor

from .moments import Moments


def refitted(moments: Moments, matrix: Tensor, ridge: float) -> Tensor:
    """The matrix M that minimises sum_t w_t |x_t M - z_t|^2 + ridge s |M - matrix|^2, with s the mean diagonal of xx.

    The ridge pulls towards what the module has: what the tokens say nothing of stays.

    Args:
        moments: Moments of the module's features x and of what its output should have been, z.
        matrix: The matrix that the module has, of shape (features, width), float64.
        ridge: Strength of the ridge, as a share of the mean square of x.

    Returns:
        M, of shape (features, width), float64; NaN where the moments do not determine it.

    Example:
        >>> moments = Moments.empty(2, 2, torch.device("cpu"))
        >>> moments.add(torch.eye(2), 3 * torch.eye(2), torch.ones(2))
        >>> refitted(moments, torch.eye(2, dtype=torch.float64), ridge=1e-9).round()
        tensor([[3., 0.],
                [0., 3.]], dtype=torch.float64)
    """
    strength = ridge * moments.xx.diagonal().mean()
    identity = torch.eye(len(moments.xx), dtype=torch.float64, device=moments.xx.device)
    solution, failed = torch.linalg.solve_ex(moments.xx + strength * identity, moments.xz + strength * matrix)
    return solution.masked_fill(failed > 0, torch.nan)


def mapped(moments: Moments, matrix: Tensor, ridge: float) -> Tensor:
    """The matrix, behind it the best linear map T of the residual stream's width; the ridge pulls T to the identity.

    Args:
        moments: The moments; see `refitted`.
        matrix: The matrix that the module has.
        ridge: Strength of the ridge, as a share of the mean square of the output.

    Returns:
        matrix @ T, of shape (features, width), float64.

    Example:
        >>> moments = Moments.empty(2, 2, torch.device("cpu"))
        >>> moments.add(torch.eye(2), 3 * torch.eye(2), torch.ones(2))
        >>> mapped(moments, torch.eye(2, dtype=torch.float64), ridge=1e-9).round()
        tensor([[3., 0.],
                [0., 3.]], dtype=torch.float64)
    """
    identity = torch.eye(matrix.shape[1], dtype=torch.float64, device=matrix.device)
    return matrix @ refitted(moments.behind(matrix), identity, ridge)


def scaled_by_channel(moments: Moments, matrix: Tensor, ridge: float) -> Tensor:
    """The matrix, its output times the best factor for each channel; the ridge pulls the factors to 1.

    Args:
        moments: The moments; see `refitted`.
        matrix: The matrix that the module has.
        ridge: Strength of the ridge, as a share of the mean square of the output.

    Returns:
        matrix @ diagonal, of shape (features, width), float64.

    Example:
        >>> moments = Moments.empty(2, 2, torch.device("cpu"))
        >>> moments.add(torch.eye(2), 3 * torch.eye(2), torch.ones(2))
        >>> scaled_by_channel(moments, torch.eye(2, dtype=torch.float64), ridge=0.0)
        tensor([[3., 0.],
                [0., 3.]], dtype=torch.float64)
    """
    output = moments.behind(matrix)
    squares, products = output.xx.diagonal(), output.xz.diagonal()
    strength = ridge * squares.mean()
    return matrix * ((products + strength) / (squares + strength))


def scaled(moments: Moments, matrix: Tensor) -> Tensor:
    """The matrix, its output times the best factor.

    Args:
        moments: The moments; see `refitted`.
        matrix: The matrix that the module has.

    Returns:
        matrix times a number, of shape (features, width), float64.

    Example:
        >>> moments = Moments.empty(2, 2, torch.device("cpu"))
        >>> moments.add(torch.eye(2), 3 * torch.eye(2), torch.ones(2))
        >>> scaled(moments, torch.eye(2, dtype=torch.float64))
        tensor([[3., 0.],
                [0., 3.]], dtype=torch.float64)
    """
    output = moments.behind(matrix)
    return matrix * (output.xz.trace() / output.xx.trace())
