"""Which map is kept: several are fitted, each is verified on windows that it was not fitted on."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from .maps import diagonal_map, full_map, scalar_map
from .moments import Moments

_RIDGE = 1e-2
_OTHER_RIDGES = (1e-1, 1e-3)


@dataclass
class MapChoice:
    """The best map so far.

    Attributes:
        loss: Loss on the held-back windows with it; at first, without any.
        name: What it is called.
        mapping: The map; `None` where none lowers the loss.
        tried: Loss with each map that was tried.
    """

    loss: float
    name: str | None = None
    mapping: Tensor | None = None
    tried: dict[str, float] = field(default_factory=dict)

    def verify(self, name: str, mapping: Tensor, loss_with: Callable[[Tensor], float]) -> None:
        """Try a map, and keep it if it is better.

        Args:
            name: What it is called.
            mapping: The map.
            loss_with: Gives the loss on the held-back windows with a map.

        Example:
            >>> import torch
            >>> choice = MapChoice(loss=3.0)
            >>> choice.verify("scalar", torch.ones(2), lambda mapping: 2.5)
            >>> choice.name, choice.loss
            ('scalar', 2.5)
        """
        if not mapping.isfinite().all():
            return
        loss = loss_with(mapping)
        if not math.isfinite(loss):
            return
        self.tried[name] = loss
        if loss < self.loss:
            self.loss, self.name, self.mapping = loss, name, mapping


def choose_map(
    moments: dict[str, Moments], is_linear: bool, loss_before: float, loss_with: Callable[[Tensor], float]
) -> MapChoice:
    """Fit maps and verify each: first the weightings of the tokens, then the ridges of the best, then simpler maps.

    Args:
        moments: Moments of the fitting windows, by weighting.
        is_linear: Whether the site takes a full map.
        loss_before: Loss on the held-back windows without a map.
        loss_with: Gives it with a map.

    Returns:
        The best map, or none where none lowers the loss.

    Example:
        ```python
        choose_map(moments, True, 5021.3, loss_with).name  # "full map, 1/|target|, ridge 0.01"
        ```
    """
    choice = MapChoice(loss_before)
    # With fewer tokens than channels a full map is a guess.
    full = is_linear and all(one.num_tokens >= len(one.xx) for one in moments.values())
    kind, fit = ("full map", full_map) if full else ("diagonal", diagonal_map)
    for weighting, one in moments.items():
        choice.verify(f"{kind}, {weighting}, ridge {_RIDGE:g}", fit(one, _RIDGE), loss_with)
    if not choice.tried:
        return choice
    best = min(choice.tried, key=choice.tried.__getitem__).split(", ")[1]
    for ridge in _OTHER_RIDGES:
        choice.verify(f"{kind}, {best}, ridge {ridge:g}", fit(moments[best], ridge), loss_with)
    if full:
        choice.verify(f"diagonal, {best}, ridge {_RIDGE:g}", diagonal_map(moments[best], _RIDGE), loss_with)
    choice.verify(f"scalar, {best}", scalar_map(moments[best]), loss_with)
    return choice
