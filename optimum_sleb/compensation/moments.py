"""What a fit needs to know of the activations: weighted second moments, summed up batch by batch."""

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


# How much a token counts, given the norm of its target and whether it is the first of its window. The first token is
# where attention sinks live: its activations can be a thousand times as large as all others', and mean nothing.
WEIGHTINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "all tokens but the first alike": _uniform,
    "1/|target|": _relative,
    "1/|target|^2": _relative_squared,
}


@dataclass
class Moments:
    """Second moments of a site's features x and of what its output should have been, z, over tokens with weights w.

    Attributes:
        xx: sum of w x x^T, float64, of shape (features, features).
        xz: sum of w x z^T, float64, of shape (features, width).
        num_tokens: Tokens that were counted.
    """

    xx: Tensor
    xz: Tensor
    num_tokens: int = 0

    @classmethod
    def empty(cls, num_features: int, width: int, device: torch.device) -> "Moments":
        """Moments of no tokens.

        Args:
            num_features: Number of features.
            width: Width of the residual stream.
            device: Where they are summed up.

        Returns:
            The moments.

        Example:
            >>> Moments.empty(3, 2, torch.device("cpu")).xz.shape
            torch.Size([3, 2])
        """
        xx, xz = (
            torch.zeros(num_features, columns, dtype=torch.float64, device=device) for columns in (num_features, width)
        )
        return cls(xx, xz)

    def add(self, x: Tensor, z: Tensor, weights: Tensor) -> None:
        """Count tokens.

        Args:
            x: Features, of shape (tokens, features), float32.
            z: What the output should have been, of shape (tokens, width), float32.
            weights: How much each token counts, of shape (tokens,), float32.

        Example:
            >>> moments = Moments.empty(2, 2, torch.device("cpu"))
            >>> moments.add(torch.eye(2), torch.ones(2, 2), torch.ones(2))
            >>> moments.num_tokens
            2
        """
        # Products in float32 keep 7 digits of a batch; the sum over batches is in float64.
        weighted = x * weights[:, None]
        self.xx += (weighted.T @ x).double()
        self.xz += (weighted.T @ z).double()
        self.num_tokens += len(x)

    def behind(self, matrix: Tensor) -> "Moments":
        """The moments of x @ matrix, of which the tokens need not be seen again.

        Args:
            matrix: A matrix of shape (features, width), float64.

        Returns:
            Moments of features of the residual stream's own width.

        Example:
            >>> moments = Moments.empty(2, 2, torch.device("cpu"))
            >>> moments.add(torch.eye(2), torch.ones(2, 2), torch.ones(2))
            >>> moments.behind(torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)).xx
            tensor([[1., 1.],
                    [1., 2.]], dtype=torch.float64)
        """
        return Moments(matrix.T @ self.xx @ matrix, matrix.T @ self.xz, self.num_tokens)
