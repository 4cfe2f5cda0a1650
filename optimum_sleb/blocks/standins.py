"""Modules that stand in a decoder block's place during the search."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..errors import UnsupportedModelError


@dataclass(frozen=True)
class OutputForm:
    """What a block's forward returns: the hidden state alone, or the first of several values.

    Attributes:
        container: `tuple` or `list`, or `None` where the block returns the tensor itself.
        length: Number of values in the container.
    """

    container: type[tuple] | type[list] | None
    length: int

    @classmethod
    def of(cls, output: object) -> "OutputForm":
        """The form of an output that was seen.

        Args:
            output: What the block returned.

        Returns:
            Its form.

        Raises:
            UnsupportedModelError: If it is neither a tensor nor a tuple or list that starts with one.

        Example:
            >>> import torch
            >>> OutputForm.of((torch.zeros(1), None)).length
            2
        """
        if isinstance(output, Tensor):
            return cls(None, 1)
        if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
            return cls(tuple if isinstance(output, tuple) else list, len(output))
        raise UnsupportedModelError(
            f"A decoder block returns a {type(output).__name__}, where a hidden state (or a tuple that starts with "
            "one) is expected; this architecture is not supported."
        )

    def wrap(self, hidden: Tensor) -> Any:
        """Give a hidden state the form that the model expects from this block.

        Args:
            hidden: The hidden state, of shape (batch, length, width).

        Returns:
            The hidden state, alone or first in a container that is otherwise filled with `None`.

        Example:
            >>> import torch
            >>> OutputForm(tuple, 2).wrap(torch.zeros(1))
            (tensor([0.]), None)
        """
        if self.container is None:
            return hidden
        return self.container([hidden] + [None] * (self.length - 1))


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
            *args: The block's positional arguments; the first, if there is one, is the hidden state of shape
                (batch, length, width).
            **kwargs: The block's keyword arguments; without positional ones, `hidden_states` is among them.

        Returns:
            The response, in the form of the block's output.

        Raises:
            UnsupportedModelError: If the hidden state is not where it is expected.
        """
        if args:
            hidden, *rest = args
            return self._form.wrap(self._respond(hidden, tuple(rest), kwargs))
        if "hidden_states" in kwargs:
            rest_of_kwargs = {name: value for name, value in kwargs.items() if name != "hidden_states"}
            return self._form.wrap(self._respond(kwargs["hidden_states"], (), rest_of_kwargs))
        raise UnsupportedModelError(
            f"{type(self._block[0]).__name__} is called with {sorted(kwargs)}, where a first positional argument or "
            "`hidden_states` is expected; this architecture is not supported."
        )
