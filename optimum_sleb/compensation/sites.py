"""The module of a decoder block that a linear map can be folded into: the last that writes to the residual stream."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..blocks.forward import message_or_raise
from ..blocks.packed import is_packed
from ..blocks.runner import Stream
from ..blocks.standins import hidden_state_of
from ..blocks.state import removing_hooks
from ..runtime.memory import ran_out_of_memory
from ..runtime.undo import undoing


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


@torch.no_grad()
def find_site(block: nn.Module, stream: Stream, index: int) -> Site | None:
    """Find the last module of a block that writes straight to the residual stream, without a table of model families.

    A disturbance of its output must leave the block unchanged, or times a constant. `stream` is the block's input.
    `None` if there is no such module (experts whose outputs are mixed, a norm after the residual sum).
    """
    args, kwargs = stream.arguments_of(index)

    def run() -> Tensor:
        return hidden_state_of(block(stream.hidden, *args, **kwargs))

    outputs: dict[str, Tensor] = {}  # ordered by each module's last call

    def record(path: str, _module: nn.Module, _args: object, output: Any) -> None:
        if isinstance(output, Tensor):
            outputs.pop(path, None)
            outputs[path] = output

    with removing_hooks() as hooks:
        for path, module in block.named_modules():
            if _is_foldable(module, stream.hidden.shape[-1]):
                hooks.append(module.register_forward_hook(partial(record, path)))
        base = run()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(base.shape, generator=generator).to(base)
    disturbance = noise * base.float().std().to(base.dtype) * 8  # far above the rounding of the residual stream
    for path in reversed(outputs):
        module = block.get_submodule(path)
        if outputs[path].numel() != base.numel():
            continue  # such as an expert that gets only some of the tokens
        added = disturbance.to(outputs[path].dtype)  # the residual stream may have a higher precision
        try:
            with _disturbed(module, added):
                change = (run() - base).double()
        except Exception as error:  # the block does not run with this output: no site
            if ran_out_of_memory(error):
                raise  # the caller tries again with fewer windows
            message_or_raise(error)  # raises again if the device itself failed
            continue
        scale = _scale_of(change, added.double())
        if scale is not None:
            offset = 0.0 if isinstance(module, nn.Linear | Conv1D) else _offset_of(module, outputs[path])
            return Site(path, module, scale, offset)
    return None


def _is_foldable(module: nn.Module, width: int) -> bool:
    weights = dict(module.named_parameters(recurse=False))
    if not set(weights) <= {"weight", "bias"} or "weight" not in weights or any(map(is_packed, weights.values())):
        return False
    if isinstance(module, nn.Linear):
        return module.out_features == width
    return weights["weight"].shape[-1] == width and (isinstance(module, Conv1D) or weights["weight"].dim() == 1)


@contextmanager
def _disturbed(module: nn.Module, disturbance: Tensor) -> Iterator[None]:
    with removing_hooks() as hooks:
        hooks.append(module.register_forward_hook(lambda _module, _args, output: output + disturbance.view_as(output)))
        yield


def _scale_of(change: Tensor, disturbance: Tensor) -> float | None:
    """Return the constant by which a disturbance was multiplied; `None` if it changed in another way."""
    scale = ((change * disturbance).sum() / (disturbance * disturbance).sum()).item()
    rest = (change - scale * disturbance).norm() / (scale * disturbance).norm()
    # Half precision rounds to a few thousandths; a norm, or a second path through the block, changes far more.
    return scale if abs(scale) > 1e-3 and rest < 0.02 else None


def _offset_of(norm: nn.Module, output: Tensor) -> float:
    """Return 1 for a norm that multiplies by 1 + its weight: its output does not vanish at weight 0."""
    weight = norm.get_parameter("weight")
    kept = weight.detach().clone()
    with undoing(lambda: weight.data.copy_(kept)):
        weight.zero_()
        rest = norm(output)
    bias = getattr(norm, "bias", None)
    return float((rest if bias is None else rest - bias).count_nonzero().item() > 0)
