"""Where in a decoder block a linear map can be folded: the last module that writes straight to the residual stream."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..blocks.forward import reason_of
from ..blocks.packed import is_packed
from ..blocks.runner import Stream
from ..blocks.standins import hidden_state_of
from ..memory import ran_out_of_memory


@dataclass(frozen=True)
class Site:
    """A module whose output is added to the residual stream as it is, or times a constant.

    Its output is taken as features @ matrix: those of a linear layer are its input (and a one for the bias), those of
    a norm are its output, of which only the diagonal of the matrix can be changed.

    Attributes:
        path: Name of the module inside its block.
        module: The module: a linear layer, or the norm that a block puts behind its last linear layer.
        scale: What its output is multiplied by before it is added.
        offset: 0 or 1: a norm multiplies by its weight, or (Gemma) by 1 + its weight. 0 for a linear layer.
    """

    path: str
    module: nn.Module
    scale: float
    offset: float = 0.0

    @property
    def is_linear(self) -> bool:
        """Whether the whole matrix can be changed."""
        return isinstance(self.module, nn.Linear | Conv1D)

    @property
    def _bias(self) -> Tensor | None:
        return dict(self.module.named_parameters(recurse=False)).get("bias")

    def features(self, given: Tensor, output: Tensor) -> Tensor:
        """The features of tokens that the module saw.

        Args:
            given: The module's input, of shape (..., inputs).
            output: The module's output, of shape (..., width).

        Returns:
            Features, of shape (tokens, features), float32.

        Example:
            ```python
            site.features(torch.randn(2, 5, 1536), torch.randn(2, 5, 576)).shape  # (10, 1536)
            ```
        """
        if not self.is_linear:
            return output.flatten(0, -2).float()
        given = given.flatten(0, -2).float()
        return given if self._bias is None else F.pad(given, (0, 1), value=1.0)

    def matrix(self) -> Tensor:
        """The matrix as the module has it.

        Returns:
            The matrix, of shape (features, width), float64.

        Example:
            ```python
            site.matrix().shape  # (1536, 576)
            ```
        """
        weight = self.module.get_parameter("weight").detach().double()
        if not self.is_linear:
            return torch.eye(len(weight), dtype=torch.float64, device=weight.device)
        weight = weight.T if isinstance(self.module, nn.Linear) else weight  # that of a Conv1D is (inputs, width)
        return weight if self._bias is None else torch.cat([weight, self._bias.detach().double()[None]])

    def fold(self, matrix: Tensor) -> dict[str, Tensor]:
        """The parameters that give the module another matrix.

        Args:
            matrix: A matrix of shape (features, width), float64; a diagonal one for a norm.

        Returns:
            New values by parameter name, in float64.

        Example:
            ```python
            site.fold(site.matrix())["weight"]  # as it is
            ```
        """
        parameters = dict(self.module.named_parameters(recurse=False))
        if not self.is_linear:
            factors = matrix.diagonal()
            folded = {name: value.detach().double() * factors for name, value in parameters.items()}
            folded["weight"] += self.offset * (factors - 1)  # (w + offset) f - offset
            return folded
        weight = matrix if self._bias is None else matrix[:-1]
        folded = {"weight": weight.T if isinstance(self.module, nn.Linear) else weight}
        return folded if self._bias is None else {**folded, "bias": matrix[-1]}


@torch.no_grad()
def find_site(block: nn.Module, stream: Stream, index: int) -> Site | None:
    """Find the last module of a block that writes straight to the residual stream.

    No table of families is needed: a disturbance of the module's output must come out of the block as it is, or times
    a constant. A module after whose disturbance the block does not run is none.

    Args:
        block: The block.
        stream: A short stream at its entrance.
        index: Its index.

    Returns:
        The site, or `None` where there is none (experts whose outputs are mixed, a norm behind the residual).

    Example:
        ```python
        find_site(model.model.layers[3], stream, 3).path  # "mlp.down_proj"
        ```
    """
    args, kwargs = stream.arguments_of(index)

    def run() -> Tensor:
        return hidden_state_of(block(stream.hidden, *args, **kwargs))

    outputs: dict[str, Tensor] = {}  # in the order in which the modules ran last
    hooks = [
        module.register_forward_hook(lambda _module, _args, output, path=path: _note(outputs, path, output))
        for path, module in block.named_modules()
        if _is_foldable(module, stream.hidden.shape[-1])
    ]
    try:
        base = run()
    finally:
        for hook in hooks:
            hook.remove()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(base.shape, generator=generator).to(base)
    disturbance = noise * base.float().std().to(base.dtype) * 8  # well above the rounding of what it is added to
    for path in reversed(outputs):
        module = block.get_submodule(path)
        if outputs[path].numel() != base.numel():
            continue  # an expert that sees some of the tokens, say
        added = disturbance.to(outputs[path].dtype)  # the residual stream may be more precise than its modules
        try:
            with _disturbed(module, added):
                change = (run() - base).double()
        except Exception as error:  # a family's own code, on an output that it does not allow
            if ran_out_of_memory(error):
                raise  # with fewer windows at a time there may be room
            reason_of(error)  # which raises what says nothing about the family
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


def _note(outputs: dict[str, Tensor], path: str, output: Any) -> None:
    if isinstance(output, Tensor):
        outputs.pop(path, None)
        outputs[path] = output


@contextmanager
def _disturbed(module: nn.Module, disturbance: Tensor) -> Iterator[None]:
    hook = module.register_forward_hook(lambda _module, _args, output: output + disturbance.view_as(output))
    try:
        yield
    finally:
        hook.remove()


def _scale_of(change: Tensor, disturbance: Tensor) -> float | None:
    """The constant by which a disturbance was multiplied, if that is all that happened to it."""
    scale = ((change * disturbance).sum() / (disturbance * disturbance).sum()).item()
    rest = (change - scale * disturbance).norm() / (scale * disturbance).norm()
    # Half precision rounds to a few thousandths. A norm, or a second way through the block, changes far more.
    return scale if abs(scale) > 1e-3 and rest < 0.02 else None


def _offset_of(norm: nn.Module, output: Tensor) -> float:
    """Whether a norm multiplies by 1 + its weight: then a weight of zero does not make its output vanish."""
    weight = norm.get_parameter("weight")
    kept = weight.detach().clone()
    try:
        weight.zero_()
        rest = norm(output)
    finally:
        weight.copy_(kept)
    bias = getattr(norm, "bias", None)
    return float((rest if bias is None else rest - bias).count_nonzero().item() > 0)
