"""State of a model: what it is made of and how it is run, to put it back after an error or an interrupt."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedConfig, PreTrainedModel

from ..runtime.undo import undoing


class ModelState:
    """References to a model's modules, tensors, hooks, flags and config fields, and to the fields of other objects.
    Nothing is copied, so a weight that was changed in place is not put back; of one that `trains` the type is."""

    def __init__(self, model: PreTrainedModel, *owners: object, trains: bool = False) -> None:
        configs = [*_configs(model.config), *filter(None, [getattr(model, "generation_config", None)])]
        fields = [vars(owner) for owner in (*model.modules(), *configs, *owners)]
        # Hooks, parameters, buffers and submodules are dicts in these; others hold references to the same dicts.
        inner = [value for of_one in fields for value in of_one.values() if isinstance(value, dict)]
        self._dicts: list[tuple[dict[str, Any], dict[str, Any]]] = [(one, one.copy()) for one in (*fields, *inner)]
        tensors = [*model.parameters(), *model.buffers()]
        plain = [one for one in tensors if type(one) in (nn.Parameter, Tensor)]
        # In training the data are soon others, and a reference to these would keep the memory of a second model.
        self._data = [(one, one.dtype if trains else one.data, one.requires_grad, one.grad) for one in plain]

    def restore(self) -> None:
        """Put everything back in place."""
        for changed, original in self._dicts:
            changed.clear()
            changed.update(original)
        for tensor, data, requires_grad, grad in self._data:
            tensor.grad = None  # one of another type cannot stay
            tensor.data = data if isinstance(data, Tensor) else tensor.data.to(data)
            tensor.requires_grad_(requires_grad).grad = grad


@contextmanager
def restored_on_error(model: PreTrainedModel, *owners: object, trains: bool = False) -> Iterator[None]:
    """Restore a model, and the fields of its owners, if the context ends in an error or an interrupt."""
    state = ModelState(model, *owners, trains=trains)
    try:
        try:
            yield
        except BaseException:
            state.restore()
            raise
    except BaseException:  # an interrupt may have cut the first one short
        state.restore()
        raise


@contextmanager
def removing_hooks() -> Iterator[list[RemovableHandle]]:
    """Yield a list for the handles of hooks, which are removed at the end."""
    handles: list[RemovableHandle] = []

    def remove() -> None:
        for handle in handles:
            handle.remove()

    with undoing(remove):
        yield handles


def _configs(config: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    yield config
    for value in vars(config).values():
        if isinstance(value, PreTrainedConfig):
            yield from _configs(value)
