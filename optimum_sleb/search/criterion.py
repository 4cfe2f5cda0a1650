"""A criterion of one's own: a function from logits and token windows to a loss of each window."""

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from ..blocks.criterion import CROSS_ENTROPY, KL, Batch, Criterion, Tail
from ..blocks.divergence import Divergence
from ..blocks.forward import logits_of
from ..config import check_criterion
from ..errors import ConfigError, CriterionError
from ..runtime.json import shown
from ..runtime.memory import ran_out_of_memory

# Takes logits (batch, length, vocabulary) and a `WindowBatch`, returns losses (batch,); lower is better.
CriterionFunction = Callable[[Tensor, Any], Tensor]


def choose_criterion(named: str | None, given: CriterionFunction | str | None) -> Criterion:
    """Return the criterion of a recipe (`named`) or of an argument, which must not be two.
    Raise CriterionError if its function cannot be imported."""
    if given is None or isinstance(given, str):
        name = named if given is None else given
        if name is None:
            return CROSS_ENTROPY
        check_criterion(name, None)
        _refuse_two(named, name)
        if name == KL:
            return Divergence()
        return FunctionCriterion(import_criterion(name), name)
    if not callable(given):
        raise ConfigError(f"criterion must be a function, or its name as 'org.module:function'; got {shown(given)}.")
    criterion = FunctionCriterion(given, _name_of(given))
    _refuse_two(named, criterion.name)
    return criterion


@dataclass(frozen=True)
class FunctionCriterion(Criterion):
    """Losses that a function makes of whole logits; what it returns is checked."""

    function: CriterionFunction
    name: str
    source: str | None = field(init=False)
    needs_whole_logits = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", _hash_of(self.function))

    def of_hidden(self, tail: Tail, hidden: Tensor, batch: Batch) -> Tensor:
        """Return the losses, (batch,), of a final hidden state (batch, length, width)."""
        return self._losses(tail.logits(hidden, batch.ids), batch)

    def of_model(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Return the losses, (batch,), by one forward pass of the whole model."""
        return self._losses(logits_of(model, batch.ids), batch)

    def _losses(self, logits: Tensor, batch: Batch) -> Tensor:
        is_finite = logits.isfinite().all()  # asked first, because the function may change the logits
        try:
            losses = self.function(logits, batch.to(logits.device))
        except Exception as error:
            if ran_out_of_memory(error):
                raise  # the batch is halved
            raise CriterionError(
                f"The criterion {self.name} failed ({_one_line(error)}); mend it, or name another function."
            ) from error
        self._check(losses, len(batch.ids), is_finite)
        return losses.to(batch.ids.device)

    def _check(self, losses: Any, num_windows: int, logits_are_finite: Tensor) -> None:
        """Raise CriterionError for what is no loss; of logits that are not finite, neither need the loss be."""
        must = f"The criterion {self.name} must return a floating-point tensor of one finite loss for each window"
        if not isinstance(losses, Tensor):
            raise CriterionError(f"{must}, shape ({num_windows},); got {shown(losses)}.")
        if losses.shape != (num_windows,) or not losses.is_floating_point():
            dtype = str(losses.dtype).removeprefix("torch.")
            raise CriterionError(f"{must}, shape ({num_windows},); got {dtype} of shape {tuple(losses.shape)}.")
        if not losses.isfinite().all() and logits_are_finite:
            raise CriterionError(f"{must}; it made {losses[~losses.isfinite()][0].item()} of finite logits.")


def import_criterion(name: str) -> CriterionFunction:
    """Return the function `org.module:function`; raise CriterionError if its module cannot be imported or has none."""
    try:
        function = resolve_name(name)
    except (Exception, SystemExit) as error:  # whatever the module does while it is imported
        raise CriterionError(
            f"The criterion {shown(name)} cannot be imported ({_one_line(error)}); name a function that Python finds, "
            "as 'org.module:function'."
        ) from error
    if not callable(function):
        kind = type(function).__name__
        raise CriterionError(f"The criterion {shown(name)} is no function but of type {kind}; name a function.")
    return function


def _name_of(function: CriterionFunction) -> str:
    """Return where a function stands, as a recipe names it; of an object that can be called, its class."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"


def _hash_of(function: CriterionFunction) -> str | None:
    """Return a hash of a function's own source; `None` where there is none to read."""
    code = function if hasattr(function, "__qualname__") else type(function)
    try:
        return hashlib.sha256(inspect.getsource(code).encode()).hexdigest()[:16]
    except (OSError, TypeError):
        return None


def _refuse_two(named: str | None, name: str) -> None:
    if named not in (None, name):
        raise ConfigError(f"The recipe names criterion={shown(named)}, and {shown(name)} was given; leave one out.")


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
