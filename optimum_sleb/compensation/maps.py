"""Linear maps that bring what a block writes close to what the block behind the gap expects."""

import torch
from torch import Tensor

from .moments import Moments


def full_map(moments: Moments, ridge: float) -> Tensor:
    """The map T that minimises sum_t w_t |x_t T - z_t|^2 + ridge s |T - 1|^2, with s the mean diagonal of xx.

    The ridge pulls towards the identity, which is what no compensation is: what the tokens say nothing of stays.

    Args:
        moments: The moments.
        ridge: Strength of the ridge, as a share of the mean square of x.

    Returns:
        T, of shape (width, width), float64; NaN where the moments do not determine it.

    Example:
        >>> moments = Moments.empty(2, torch.device("cpu"))
        >>> moments.add(torch.eye(2), 3 * torch.eye(2), torch.ones(2))
        >>> full_map(moments, ridge=1e-9).round()
        tensor([[3., 0.],
                [0., 3.]], dtype=torch.float64)
    """
    identity = torch.eye(len(moments.xx), dtype=torch.float64, device=moments.xx.device)
    strength = ridge * moments.xx.diagonal().mean()
    solution, failed = torch.linalg.solve_ex(moments.xx + strength * identity, moments.xz + strength * identity)
    return solution.masked_fill(failed > 0, torch.nan)


def diagonal_map(moments: Moments, ridge: float) -> Tensor:
    """The best factor for each channel; see `full_map`.

    Args:
        moments: The moments.
        ridge: Strength of the ridge, as a share of the mean square of x.

    Returns:
        The factors, of shape (width,), float64.

    Example:
        >>> moments = Moments.empty(2, torch.device("cpu"))
        >>> moments.add(torch.eye(2), 3 * torch.eye(2), torch.ones(2))
        >>> diagonal_map(moments, ridge=0.0)
        tensor([3., 3.], dtype=torch.float64)
    """
    squares, products = moments.xx.diagonal(), moments.xz.diagonal()
    strength = ridge * squares.mean()
    return (products + strength) / (squares + strength)


def scalar_map(moments: Moments) -> Tensor:
    """The best factor for all channels together; see `full_map`.

    Args:
        moments: The moments.

    Returns:
        The factor, for each channel, of shape (width,), float64.

    Example:
        >>> moments = Moments.empty(2, torch.device("cpu"))
        >>> moments.add(torch.eye(2), 3 * torch.eye(2), torch.ones(2))
        >>> scalar_map(moments)
        tensor([3., 3.], dtype=torch.float64)
    """
    factor = moments.xz.trace() / moments.xx.trace()
    return factor.expand(len(moments.xx)).clone()
