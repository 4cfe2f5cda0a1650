"""What every way of measuring candidates has in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor
from transformers import PreTrainedModel

from ..blocks.stack import DecoderStack
from ..calibration.windows import TokenWindows


@dataclass
class Measurement(ABC):
    """Measures what a step of the search asks for. This is the one interface behind which all speed lives.

    Attributes:
        model: The model; it is left as it was.
        stack: Its decoder blocks.
        windows: The calibration windows.
        batch_size: Windows in one forward pass.
        on_progress: Called with the number of (candidate, window) pairs that were just measured.
        block_passes: Decoder blocks run so far, each on one batch of windows.
    """

    model: PreTrainedModel
    stack: DecoderStack
    windows: TokenWindows
    batch_size: int = 1
    on_progress: Callable[[int], object] = lambda pairs: None
    block_passes: int = field(default=0, init=False)

    @abstractmethod
    def __call__(self, alive: Sequence[int], candidates: Sequence[int]) -> Tensor:
        """Measure every candidate's removal.

        Args:
            alive: Indices of the blocks that are still there, ascending.
            candidates: Those of them whose removal is tried, ascending.

        Returns:
            The loss of each window without each candidate, of shape (candidates, windows), on the CPU.
        """
