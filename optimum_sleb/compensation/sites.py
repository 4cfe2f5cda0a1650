"""The modules of a decoder block that a linear map can be folded into: those that write to the residual stream."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True)
class Site:
    """A module whose output, times a constant, is added to the residual stream: a linear layer, or a norm after it.

    Its output is features @ matrix. Features: a linear layer's input (and a 1 for the bias), or a norm's output.
    """

    path: str  # name inside the block
    module: nn.Module
    scale: float  # the output is multiplied by it before it is added
    offset: float = 0.0  # 1 for a norm that multiplies by 1 + its weight (Gemma), else 0

    @property
    def is_linear(self) -> bool:
        """Return whether the whole matrix can be changed; of a norm, only its diagonal."""
        return isinstance(self.module, nn.Linear | Conv1D)

    @property
    def _bias(self) -> Tensor | None:
        return dict(self.module.named_parameters(recurse=False)).get("bias")

    def features(self, inputs: Tensor, output: Tensor) -> Tensor:
        """Return the features, (tokens, features) in float32, from inputs (..., inputs) and output (..., width)."""
        if not self.is_linear:
            return output.flatten(0, -2).float()
        inputs = inputs.flatten(0, -2).float()
        return inputs if self._bias is None else F.pad(inputs, (0, 1), value=1.0)

    def matrix(self) -> Tensor:
        """Return the module's own matrix, (features, width), float64; the identity for a norm."""
        weight = self.module.get_parameter("weight").detach().double()
        if not self.is_linear:
            return torch.eye(len(weight), dtype=torch.float64, device=weight.device)
        weight = weight.T if isinstance(self.module, nn.Linear) else weight  # a Conv1D has (inputs, width)
        return weight if self._bias is None else torch.cat([weight, self._bias.detach().double()[None]])

    def parameters_for(self, matrix: Tensor) -> dict[str, Tensor]:
        """Return new parameter values by name, float64, that give the module this matrix; diagonal for a norm."""
        parameters = dict(self.module.named_parameters(recurse=False))
        if not self.is_linear:
            factors = matrix.diagonal()
            values = {name: value.detach().double() * factors for name, value in parameters.items()}
            values["weight"] += self.offset * (factors - 1)  # (w + offset) f - offset
            return values
        weight = matrix if self._bias is None else matrix[:-1]
        values = {"weight": weight.T if isinstance(self.module, nn.Linear) else weight}
        return values if self._bias is None else {**values, "bias": matrix[-1]}
