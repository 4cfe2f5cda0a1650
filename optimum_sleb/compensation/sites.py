"""Where in a decoder block a linear map can be folded: the last module that writes straight to the residual stream."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..blocks.runner import Stream
from ..blocks.standins import hidden_state_of


@dataclass(frozen=True)
class Site:
    """A module whose output is added to the residual stream as it is, or times a constant.

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
        """Whether a full map can be folded; a norm takes a diagonal."""
        return isinstance(self.module, nn.Linear | Conv1D)

    def fold(self, mapping: Tensor) -> dict[str, Tensor]:
        """The parameters with which the module's output m becomes m @ mapping.

        Args:
            mapping: A map of shape (width, width), or a diagonal of shape (width,), in float64.

        Returns:
            New values by parameter name, in float64.

        Example:
            ```python
            site.fold(torch.ones(576))["weight"]  # as it was
            ```
        """
        full = torch.diag(mapping) if mapping.dim() == 1 and self.is_linear else mapping
        folded = {}
        for name, parameter in self.module.named_parameters(recurse=False):
            value = parameter.detach().to(torch.float64)
            if not self.is_linear:
                folded[name] = (value + self.offset) * mapping - self.offset if name == "weight" else value * mapping
            elif name == "weight" and isinstance(self.module, nn.Linear):  # (out, in)
                folded[name] = full.T @ value
            else:  # the weight of a Conv1D is (in, out), a bias is (out,)
                folded[name] = value @ full
        return folded


@torch.no_grad()
def find_site(block: nn.Module, stream: Stream, index: int) -> Site | None:
    """Find the last module of a block that writes straight to the residual stream.

    No table of families is needed: a disturbance of the module's output must come out of the block as it is, or times
    a constant.

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
        with _disturbed(module, disturbance):
            scale = _scale_of((run() - base).double(), disturbance.double())
        if scale is not None:
            offset = 0.0 if isinstance(module, nn.Linear | Conv1D) else _offset_of(module, outputs[path])
            return Site(path, module, scale, offset)
    return None


def _is_foldable(module: nn.Module, width: int) -> bool:
    weights = dict(module.named_parameters(recurse=False))
    if not set(weights) <= {"weight", "bias"} or "weight" not in weights:
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
