"""Stand-ins: modules that take a decoder block's place during the search."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..errors import UnsupportedModelError

# Where a block receives an argument: its position after the hidden state, or its keyword.
ArgumentKey = int | str


@dataclass(frozen=True)
class OutputForm:
    """The form of a block's output: the hidden state alone, or the first of several values."""

    container: type[tuple] | type[list] | None  # None where the block returns the tensor itself
    length: int  # number of values in the container
    # Values that the next block receives from this one (router states, top-k indices, ...): position in the container,
    # and where the next block receives them.
    carried: tuple[tuple[int, ArgumentKey], ...] = ()

    @classmethod
    def of(cls, output: object, next_arguments: "dict[ArgumentKey, Any] | None" = None) -> "OutputForm":
        """Return the form of an observed output; raise UnsupportedModelError if it has no hidden state where expected.

        >>> import torch
        >>> state = torch.zeros(3)
        >>> OutputForm.of((torch.zeros(1), None, state), {"mask": None, "state": state}).carried
        ((2, 'state'),)
        """
        if isinstance(output, Tensor):
            return cls(None, 1)
        if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
            carried = tuple(
                (slot, key)
                for slot, value in enumerate(output)
                for key, argument in (next_arguments or {}).items()
                if slot > 0 and isinstance(value, Tensor) and argument is value
            )
            return cls(tuple if isinstance(output, tuple) else list, len(output), carried)
        raise UnsupportedModelError(
            f"A decoder block returns a {type(output).__name__}, where a hidden state (or a tuple that starts with "
            "one) is expected; this architecture is not supported."
        )

    def wrap(self, hidden: Tensor, arguments: "dict[ArgumentKey, Any]") -> Any:
        """Return a hidden state in the form of the block's output, with carried values from the arguments, else None.

        >>> import torch
        >>> OutputForm(tuple, 2).wrap(torch.zeros(1), {})
        (tensor([0.]), None)
        """
        if self.container is None:
            return hidden
        values = [hidden] + [None] * (self.length - 1)
        for slot, key in self.carried:
            values[slot] = arguments.get(key)
        return self.container(values)


def arguments_by_key(args: tuple[Any, ...], kwargs: dict[str, Any]) -> "dict[ArgumentKey, Any]":
    """Return a call's arguments, besides the hidden state, by position or name.

    >>> arguments_by_key(("a",), {"mask": "b"})
    {0: 'a', 'mask': 'b'}
    """
    return dict(enumerate(args)) | kwargs


def split_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    """Return the hidden state, the other positional and the other keyword arguments of a block's call."""
    if args:
        return args[0], args[1:], kwargs
    if "hidden_states" in kwargs:
        return kwargs["hidden_states"], (), {name: kwargs[name] for name in kwargs if name != "hidden_states"}
    raise UnsupportedModelError(
        f"A decoder block is called with {sorted(kwargs)}, where a first positional argument or `hidden_states` is "
        "expected; this architecture is not supported."
    )


def hidden_state_of(output: Any) -> Tensor:
    """Return the hidden state in a block's output, a tensor or the first value of a tuple or list."""
    return output[0] if isinstance(output, tuple | list) else output


def _identity(hidden: Tensor, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Tensor:
    """Return the hidden state unchanged, as if the block were not there."""
    return hidden


class StandIn(nn.Module):
    """Module in a block's place: attributes are those of the block, but the hidden state comes from `respond`.

    `respond` gets the hidden state and the other arguments. Attributes are needed because models read some of their
    blocks, such as `layer.attention_type`. The stand-in has no parameters.
    """

    def __init__(
        self,
        block: nn.Module,
        form: OutputForm,
        respond: Callable[[Tensor, tuple[Any, ...], dict[str, Any]], Tensor] = _identity,
    ) -> None:
        super().__init__()
        self._block = (block,)  # in a tuple, so that nn.Module does not register it as a child
        self._form = form
        self._respond = respond

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_block"][0], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the response, in the form of the block's output."""
        hidden, rest, kwargs = split_call(args, kwargs)
        return self._form.wrap(self._respond(hidden, rest, kwargs), arguments_by_key(rest, kwargs))
