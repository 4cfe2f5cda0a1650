"""Modules that stand in a decoder block's place during the search."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..errors import UnsupportedModelError

# Where a block receives what the block before hands it beside the hidden state: a position among its further
# positional arguments, or the name of a keyword argument.
Place = int | str


@dataclass(frozen=True)
class OutputForm:
    """What a block's forward returns: the hidden state alone, or the first of several values.

    Attributes:
        container: `tuple` or `list`, or `None` where the block returns the tensor itself.
        length: Number of values in the container.
        carried: Values that the next block receives from this one (router states, top-k indices, ...): their
            position in the container, and where a block receives them.
    """

    container: type[tuple] | type[list] | None
    length: int
    carried: tuple[tuple[int, Place], ...] = ()

    @classmethod
    def of(cls, output: object, next_arguments: "dict[Place, Any] | None" = None) -> "OutputForm":
        """The form of an output that was seen.

        Args:
            output: What the block returned.
            next_arguments: What the next block was called with, besides the hidden state.

        Returns:
            Its form.

        Raises:
            UnsupportedModelError: If it is neither a tensor nor a tuple or list that starts with one.

        Example:
            >>> import torch
            >>> state = torch.zeros(3)
            >>> OutputForm.of((torch.zeros(1), None, state), {"mask": None, "state": state}).carried
            ((2, 'state'),)
        """
        if isinstance(output, Tensor):
            return cls(None, 1)
        if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
            carried = tuple(
                (slot, place)
                for slot, value in enumerate(output)
                for place, argument in (next_arguments or {}).items()
                if slot > 0 and isinstance(value, Tensor) and argument is value
            )
            return cls(tuple if isinstance(output, tuple) else list, len(output), carried)
        raise UnsupportedModelError(
            f"A decoder block returns a {type(output).__name__}, where a hidden state (or a tuple that starts with "
            "one) is expected; this architecture is not supported."
        )

    def wrap(self, hidden: Tensor, arguments: "dict[Place, Any]") -> Any:
        """Give a hidden state the form that the model expects from this block.

        Args:
            hidden: The hidden state, of shape (batch, length, width).
            arguments: What the block was called with, besides the hidden state; what it would hand on is handed on.

        Returns:
            The hidden state, alone or first in a container that is otherwise filled with `None`.

        Example:
            >>> import torch
            >>> OutputForm(tuple, 2).wrap(torch.zeros(1), {})
            (tensor([0.]), None)
        """
        if self.container is None:
            return hidden
        values = [hidden] + [None] * (self.length - 1)
        for slot, place in self.carried:
            values[slot] = arguments.get(place)
        return self.container(values)


def arguments_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> "dict[Place, Any]":
    """A call's arguments by their place.

    Args:
        args: Positional arguments after the hidden state.
        kwargs: Keyword arguments.

    Returns:
        The arguments, by position or name.

    Example:
        >>> arguments_of(("a",), {"mask": "b"})
        {0: 'a', 'mask': 'b'}
    """
    return dict(enumerate(args)) | kwargs


def split_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    """Find the hidden state among the arguments of a block's call.

    Args:
        args: Positional arguments; the first, if there is one, is the hidden state.
        kwargs: Keyword arguments; without positional ones, `hidden_states` is among them.

    Returns:
        The hidden state, the other positional arguments, the other keyword arguments.

    Raises:
        UnsupportedModelError: If it is in neither place.

    Example:
        >>> import torch
        >>> split_call((), {"hidden_states": torch.zeros(1), "mask": 1})
        (tensor([0.]), (), {'mask': 1})
    """
    if args:
        return args[0], args[1:], kwargs
    if "hidden_states" in kwargs:
        return kwargs["hidden_states"], (), {name: kwargs[name] for name in kwargs if name != "hidden_states"}
    raise UnsupportedModelError(
        f"A decoder block is called with {sorted(kwargs)}, where a first positional argument or `hidden_states` is "
        "expected; this architecture is not supported."
    )


def hidden_state_of(output: Any) -> Tensor:
    """The hidden state in a block's output.

    Args:
        output: A tensor, or a tuple or list that starts with it.

    Returns:
        The hidden state, of shape (batch, length, width).

    Example:
        >>> import torch
        >>> hidden_state_of((torch.zeros(1), "anything"))
        tensor([0.])
    """
    return output[0] if isinstance(output, tuple | list) else output


def _hand_on(hidden: Tensor, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> Tensor:
    """What a removed block does."""
    return hidden


class StandIn(nn.Module):
    """Stands in a block's place: it answers for the block's attributes, but computes something else.

    Models ask their blocks for more than a forward (`layer.attention_type`, say); such questions go to the block. The
    block itself is held outside of PyTorch's registry, so the stand-in has no parameters.

    Args:
        block: The block whose place is taken.
        form: What the block's forward returns.
        respond: Makes the outgoing hidden state from the incoming one, the other positional arguments and the keyword
            arguments. The default hands the hidden state on, as if the block were not there.
    """

    def __init__(
        self,
        block: nn.Module,
        form: OutputForm,
        respond: Callable[[Tensor, tuple[Any, ...], dict[str, Any]], Tensor] = _hand_on,
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
        """Answer in the block's place.

        Args:
            *args: The block's positional arguments.
            **kwargs: The block's keyword arguments.

        Returns:
            The response, in the form of the block's output.
        """
        hidden, rest, kwargs = split_call(args, kwargs)
        return self._form.wrap(self._respond(hidden, rest, kwargs), arguments_of(rest, kwargs))
