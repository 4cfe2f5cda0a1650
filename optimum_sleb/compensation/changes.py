"""Weights that a model has for a while, with the values to put back."""

from collections.abc import Iterator

from torch import Tensor, nn

from ..blocks.loader import BlockLoader


class ChangedWeights:
    """Parameters with other values, which can be put back; memory may run out at any moment.
    `loader` loads blocks to the device, if they are in host memory."""

    def __init__(self, loader: BlockLoader | None = None) -> None:
        self._loader = loader
        self._originals: dict[nn.Parameter, Tensor] = {}

    def __iter__(self) -> Iterator[nn.Parameter]:
        return iter(self._originals)

    def put(self, parameter: nn.Parameter, value: Tensor) -> None:
        """Set a parameter, and remember its original value."""
        original = parameter.detach()
        # With blocks in host memory, the device has no room for the original.
        self._originals[parameter] = original.clone() if self._loader is None else original.to("cpu", copy=True)
        self.write(parameter, value)

    def put_back(self, parameter: nn.Parameter) -> None:
        """Restore a parameter, if it was set."""
        if parameter in self._originals:
            self.write(parameter, self._originals[parameter])
            del self._originals[parameter]  # last, because memory may run out in the line above

    def put_all_back(self) -> None:
        """Restore all parameters."""
        for parameter in list(self._originals):
            self.put_back(parameter)

    def write(self, parameter: nn.Parameter, value: Tensor) -> None:
        """Write a value to the parameter, and to host memory if its block is kept there."""
        parameter.data.copy_(value)
        if self._loader is not None:
            self._loader.write_back(parameter)
