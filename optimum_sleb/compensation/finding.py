"""The search for the sites of a decoder block: by trying, without a table of model families."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..blocks.forward import message_or_raise
from ..blocks.packed import is_packed
from ..blocks.runner import Stream
from ..blocks.standins import hidden_state_of
from ..blocks.state import removing_hooks
from ..runtime.memory import ran_out_of_memory
from ..runtime.undo import undoing
from .sites import Site


@torch.no_grad()
def find_last_site(block: nn.Module, stream: Stream, index: int) -> Site | None:
    """Find the last module whose output reaches the block's output unchanged, or times a constant.
    `stream` is the block's input. `None` if there is none (experts whose outputs are mixed, a norm behind the sum)."""
    trial = _Trial(block, stream, index)
    sites = (trial.site(path) for path in reversed(trial.outputs))
    return next((site for site in sites if site is not None), None)


@torch.no_grad()
def find_sites(block: nn.Module, stream: Stream, index: int) -> list[Site]:
    """Find all modules that write straight to the residual stream, in order, such as of attention and of MLP.
    What such a module adds reaches the block's output unchanged while all that is called after it gives what it gave.
    """
    trial = _Trial(block, stream, index)
    sites = (trial.site(path, trial.called_after(path)) for path in trial.outputs)
    return [site for site in sites if site is not None]


class _Trial:
    """A run of a block, and what its modules gave, to compare with runs in which something is changed."""

    def __init__(self, block: nn.Module, stream: Stream, index: int) -> None:
        self._block, self._stream, self._index = block, stream, index
        self.outputs: dict[str, Tensor] = {}  # of the modules that may be sites, ordered by their last call
        self._results: dict[str, Any] = {}  # of all modules with parameters
        self._times: dict[str, tuple[int, int]] = {}  # when the last call of each of these began and ended
        with removing_hooks() as hooks:
            for path, module in block.named_modules():
                if next(module.parameters(), None) is not None:
                    hooks.append(module.register_forward_pre_hook(partial(self._note_begin, path)))
                    hooks.append(module.register_forward_hook(partial(self._note_end, path)))
            self._base = self._run()
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(self._base.shape, generator=generator).to(self._base)
        # Far above the rounding of the residual stream.
        self._disturbance = noise * self._base.float().std().to(self._base.dtype) * 8

    def _note_begin(self, path: str, _module: nn.Module, _args: object) -> None:
        self._times[path] = (self._clock, self._clock)

    def _note_end(self, path: str, module: nn.Module, _args: object, output: Any) -> None:
        self._times[path] = (self._times[path][0], self._clock)
        self._results[path] = _copy(output)
        if isinstance(output, Tensor) and _is_foldable(module, self._stream.hidden.shape[-1]):
            self.outputs.pop(path, None)
            self.outputs[path] = output

    @property
    def _clock(self) -> int:
        return 1 + max((time for of_one in self._times.values() for time in of_one), default=0)

    def _run(self) -> Tensor:
        args, kwargs = self._stream.arguments_of(self._index)
        return hidden_state_of(self._block(self._stream.hidden, *args, **kwargs))

    def called_after(self, path: str) -> list[str]:
        """Return the modules with parameters whose last call began after that of another module had ended."""
        return [other for other, (began, _) in self._times.items() if began > self._times[path][1]]

    def site(self, path: str, frozen: Iterable[str] = ()) -> Site | None:
        """Return a module as a site, if a disturbance of its output reaches that of the block as it is, or times a
        constant, while the modules `frozen` give what they gave."""
        module, output = self._block.get_submodule(path), self.outputs[path]
        if output.numel() != self._base.numel():
            return None  # such as an expert that gets only some of the tokens
        added = self._disturbance.to(output.dtype)  # the residual stream may have a higher precision
        try:
            with self._frozen(frozen), _disturbed(module, added):
                change = (self._run() - self._base).double()
        except Exception as error:  # the block does not run with this output: no site
            if ran_out_of_memory(error):
                raise  # the caller tries again with fewer windows
            message_or_raise(error)  # raises again if the device itself failed
            return None
        scale = _scale_of(change, added.double())
        if scale is None:
            return None
        offset = 0.0 if isinstance(module, nn.Linear | Conv1D) else _offset_of(module, output)
        return Site(path, module, scale, offset)

    @contextmanager
    def _frozen(self, paths: Iterable[str]) -> Iterator[None]:
        with removing_hooks() as hooks:
            for path in paths:
                give = partial(_give, self._results[path])
                hooks.append(self._block.get_submodule(path).register_forward_hook(give))
            yield


def _copy(value: Any) -> Any:
    # Falcon adds the attention's output to that of the MLP in place.
    if isinstance(value, Tensor):
        return value.clone()
    return type(value)(map(_copy, value)) if type(value) in (tuple, list) else value


def _give(result: Any, _module: nn.Module, _args: object, _output: object) -> Any:
    return _copy(result)


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
