"""A model whose training ends in an error: it gets back what it was before, as far as no copy is needed for it."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

from ..runtime.undo import undoing


@contextmanager
def restored_on_error(model: PreTrainedModel) -> Iterator[None]:
    """Give a model its modules, hooks, settings and types back where an error or an interrupt ends the context, and
    with them all weights but those that were trained: adapters come off, and nothing is merged."""
    modules = list(model.modules())
    owners = [vars(one) for one in (*modules, *(one.config for one in modules if isinstance(one, PreTrainedModel)))]
    attributes = [owner.copy() for owner in owners]
    contents = [(value, value.copy()) for before in attributes for value in before.values() if isinstance(value, dict)]
    parameters = [(one, one.dtype, one.requires_grad) for one in model.parameters()]

    def restore() -> None:
        # Whatever PEFT, accelerate and the Trainer put there, and however far they came.
        for held, before in [*zip(owners, attributes, strict=True), *contents]:
            for name in held.keys() - before.keys():
                del held[name]
            held.update(before)
        for parameter, dtype, is_trained in parameters:
            parameter.grad = None
            if parameter.dtype != dtype:
                parameter.data = parameter.data.to(dtype)
            parameter.requires_grad_(is_trained)

    try:
        yield
    except BaseException:
        with undoing(restore):
            raise
