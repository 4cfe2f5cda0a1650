"""Weighted second moments of the activations, summed up batch by batch, as the fits need them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def _uniform(norms: Tensor, first: Tensor) -> Tensor:
    return torch.ones_like(norms).masked_fill(first, 0)


def _relative(norms: Tensor, _first: Tensor) -> Tensor:
    return 1 / norms


def _relative_squared(norms: Tensor, _first: Tensor) -> Tensor:
    return 1 / norms**2


# Weight of a token by the norm of its target and whether it is the first of its window. The first token is an
# attention sink: its activations can be a thousand times larger than all others and carry no information.
WEIGHTINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "all tokens but the first alike": _uniform,
    "1/|target|": _relative,
    "1/|target|^2": _relative_squared,
}


@dataclass
class Moments:
    """Second moments of a site's features x and desired outputs z, over tokens with weights w."""

    xx: Tensor  # sum of w x x^T, (features, features), float64
    xz: Tensor  # sum of w x z^T, (features, width), float64
    num_tokens: int = 0

    @classmethod
    def empty(cls, num_features: int, width: int, device: torch.device) -> "Moments":
        """Return the moments of no tokens."""
        xx, xz = (
            torch.zeros(num_features, columns, dtype=torch.float64, device=device) for columns in (num_features, width)
        )
        return cls(xx, xz)

    def add(self, x: Tensor, z: Tensor, weights: Tensor) -> None:
        """Add tokens: x (tokens, features), z (tokens, width), weights (tokens,), all float32."""
        # The products of one batch are in float32, which keeps 7 digits; the sum over batches is in float64.
        weighted = x * weights[:, None]
        self.xx += (weighted.T @ x).double()
        self.xz += (weighted.T @ z).double()
        self.num_tokens += len(x)

    def of_output(self, matrix: Tensor) -> "Moments":
        """Return the moments of x @ matrix, without another pass over the tokens; matrix is (features, width)."""
        return Moments(matrix.T @ self.xx @ matrix, matrix.T @ self.xz, self.num_tokens)
