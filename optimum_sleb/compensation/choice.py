"""Which matrix is kept: several are fitted, each is verified on windows that it was not fitted on."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from .maps import mapped, refitted, scaled, scaled_by_channel
from .moments import Moments

_FITS = {"refit": refitted, "map": mapped, "channels": scaled_by_channel}
_RIDGE = 1e-2
_OTHER_RIDGES = (1e-3, 1e-1)


@dataclass
class MatrixChoice:
    """The best matrix so far.

    Attributes:
        loss: Loss on the held-back windows with it; at first, with the matrix that the module has.
        name: What it is called; `None` for the matrix that the module has.
        matrix: The matrix.
        tried: Loss with each matrix that was tried.
    """

    loss: float
    name: str | None = None
    matrix: Tensor | None = None
    tried: dict[str, float] = field(default_factory=dict)

    def verify(self, name: str, matrix: Tensor, loss_with: Callable[[Tensor], float]) -> None:
        """Try a matrix, and keep it if it is better.

        Args:
            name: What it is called.
            matrix: The matrix.
            loss_with: Gives the loss on the held-back windows with a matrix.

        Example:
            >>> import torch
            >>> choice = MatrixChoice(loss=3.0)
            >>> choice.verify("scalar", torch.eye(2), lambda matrix: 2.5)
            >>> choice.name, choice.loss
            ('scalar', 2.5)
        """
        if not matrix.isfinite().all():
            return
        loss = loss_with(matrix)
        if not math.isfinite(loss):
            return
        self.tried[name] = loss
        if loss < self.loss:
            self.loss, self.name, self.matrix = loss, name, matrix


def choose_matrix(
    moments: dict[str, Moments],
    matrix: Tensor,
    is_linear: bool,
    loss_before: float,
    loss_with: Callable[[Tensor], float],
) -> MatrixChoice:
    """Fit matrices and verify each: the richest kind by every weighting and ridge, then simpler kinds.

    Args:
        moments: Moments of the fitting windows, by weighting.
        matrix: The matrix that the module has, of shape (features, width), float64.
        is_linear: Whether the whole matrix may change, or its diagonal only.
        loss_before: Loss on the held-back windows with the matrix that the module has.
        loss_with: Gives it with another.

    Returns:
        The best matrix, or none where none lowers the loss.

    Example:
        ```python
        choose_matrix(moments, site.matrix(), True, 5021.3, loss_with).name  # "refit, 1/|target|, ridge 0.01"
        ```
    """
    choice = MatrixChoice(loss_before)
    num_tokens = min(one.num_tokens for one in moments.values())
    richest, *simpler = _kinds(num_tokens, len(matrix), matrix.shape[1], is_linear)

    def verify(kind: str, weighting: str, ridge: float) -> float:
        name = f"{kind}, {weighting}, ridge {ridge:g}"
        choice.verify(name, _FITS[kind](moments[weighting], matrix, ridge), loss_with)
        return choice.tried.get(name, math.inf)

    losses = {weighting: verify(richest, weighting, _RIDGE) for weighting in moments}
    best = min(losses, key=losses.__getitem__)
    for ridge in _OTHER_RIDGES:
        verify(richest, best, ridge)
    for kind in simpler:
        verify(kind, best, _RIDGE)
    choice.verify(f"scalar, {best}", scaled(moments[best], matrix), loss_with)
    return choice


def _kinds(num_tokens: int, num_features: int, width: int, is_linear: bool) -> list[str]:
    """The kinds of fits that can be made, the richest first. With fewer tokens than unknowns a fit is a guess."""
    kinds = ["channels"]
    if is_linear and num_tokens >= width:
        kinds.insert(0, "map")
    if is_linear and num_tokens >= num_features:
        kinds.insert(0, "refit")
    return kinds
