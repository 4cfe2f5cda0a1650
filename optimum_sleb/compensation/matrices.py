"""Choice of a matrix: several are fitted, each is verified on held-back windows, the best is kept."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from .maps import fit_channel_scales, fit_matrix, fit_output_map, fit_scale
from .moments import Moments

_FITS = {"refit": fit_matrix, "map": fit_output_map, "channels": fit_channel_scales}
_RIDGE = 1e-2
_OTHER_RIDGES = (1e-3, 1e-1)


# A refit of every block tries few: all tokens alike is left out, because sinks spoil it.
WEIGHTINGS_OF_A_REFIT = ("1/|target|", "1/|target|^2")
_RIDGES_OF_A_REFIT = (1e-2, 1e-1)

# Chooses from moments by weighting, the module's own matrix (features, width) in float64, whether all of it may
# change, the loss before, and the loss with a matrix.
ChooseMatrix = Callable[[dict[str, Moments], Tensor, bool, float, Callable[[Tensor], float]], "MatrixChoice"]


@dataclass
class MatrixChoice:
    """Best matrix so far."""

    loss: float  # on the held-back windows; at first with the module's own matrix
    name: str | None = None  # None: the module's own matrix
    matrix: Tensor | None = None
    tried: dict[str, float] = field(default_factory=dict)  # loss with each matrix

    def try_matrix(self, name: str, matrix: Tensor, loss_with: Callable[[Tensor], float]) -> None:
        """Measure the loss with a matrix, and keep the matrix if the loss is lower."""
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
    """Fit matrices and verify each: the richest kind with all weightings and ridges, then simpler kinds.

    `matrix` is the module's own, (features, width), float64; `is_linear=False` allows only diagonal changes.
    """
    choice = MatrixChoice(loss_before)
    num_tokens = min(one.num_tokens for one in moments.values())
    richest, *simpler = _possible_kinds(num_tokens, len(matrix), matrix.shape[1], is_linear)

    def try_fit(kind: str, weighting: str, ridge: float) -> float:
        name = f"{kind}, {weighting}, ridge {ridge:g}"
        choice.try_matrix(name, _FITS[kind](moments[weighting], matrix, ridge), loss_with)
        return choice.tried.get(name, math.inf)

    losses = {weighting: try_fit(richest, weighting, _RIDGE) for weighting in moments}
    best_weighting = min(losses, key=losses.__getitem__)
    for ridge in _OTHER_RIDGES:
        try_fit(richest, best_weighting, ridge)
    for kind in simpler:
        try_fit(kind, best_weighting, _RIDGE)
    choice.try_matrix(f"scalar, {best_weighting}", fit_scale(moments[best_weighting], matrix), loss_with)
    return choice


def choose_refit(
    moments: dict[str, Moments],
    matrix: Tensor,
    is_linear: bool,
    loss_before: float,
    loss_with: Callable[[Tensor], float],
) -> MatrixChoice:
    """Fit the richest possible kind with all weightings and two ridges, and verify each: few, for every block."""
    choice = MatrixChoice(loss_before)
    num_tokens = min(one.num_tokens for one in moments.values())
    kind = _possible_kinds(num_tokens, len(matrix), matrix.shape[1], is_linear)[0]
    for weighting, of_weighting in moments.items():
        for ridge in _RIDGES_OF_A_REFIT:
            name = f"{kind}, {weighting}, ridge {ridge:g}"
            choice.try_matrix(name, _FITS[kind](of_weighting, matrix, ridge), loss_with)
    return choice


def _possible_kinds(num_tokens: int, num_features: int, width: int, is_linear: bool) -> list[str]:
    """Return the possible kinds of fit, the richest first. A fit needs as many tokens as unknowns per output."""
    kinds = ["channels"]
    if is_linear and num_tokens >= width:
        kinds.insert(0, "map")
    if is_linear and num_tokens >= num_features:
        kinds.insert(0, "refit")
    return kinds
