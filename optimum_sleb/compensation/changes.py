"""Weights that a model has for a while, beside the ones that it had."""

from collections.abc import Iterator

from torch import Tensor, nn

from ..blocks.loader import BlockLoader


class ChangedWeights:
    """Parameters with other values, which can be put back. Memory may run out at any moment.

    Args:
        loader: What brings blocks to the device and takes them from there, if anything does.
    """

    def __init__(self, loader: BlockLoader | None = None) -> None:
        self._loader = loader
        self._originals: dict[nn.Parameter, Tensor] = {}

    def __iter__(self) -> Iterator[nn.Parameter]:
        return iter(self._originals)

    def put(self, parameter: nn.Parameter, value: Tensor) -> None:
        """Give a parameter another value, and remember the one that it had."""
        original = parameter.detach()
        # Where blocks come and go, the device has no room for what it does not compute with.
        self._originals[parameter] = original.clone() if self._loader is None else original.to("cpu", copy=True)
        self.write(parameter, value)

    def put_back(self, parameter: nn.Parameter) -> None:
        """Give a parameter the value that it had, where it has another. It is forgotten last."""
        if parameter in self._originals:
            self.write(parameter, self._originals[parameter])
            del self._originals[parameter]

    def put_all_back(self) -> None:
        """Give all parameters the values that they had."""
        for parameter in list(self._originals):
            self.put_back(parameter)

    def write(self, parameter: nn.Parameter, value: Tensor) -> None:
        """Write a value to where the parameter lies, and where its block is kept."""
        parameter.data.copy_(value)
        if self._loader is not None:
            self._loader.keep(parameter)
