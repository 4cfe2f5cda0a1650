"""Criteria of one's own, as a user writes them; `tests.criteria:margin` names one."""

import torch
import torch.nn.functional as F
from torch import Tensor

from optimum_sleb.calibration.windows import WindowBatch

NOT_CALLABLE = 3


def margin(logits: Tensor, batch: WindowBatch) -> Tensor:
    """By how much the logit of the right token is below the best one, as a mean; wrong ones lie above zero."""
    logits, targets = logits.float(), batch.targets
    right = logits.gather(2, targets.clamp(min=0)[..., None])[..., 0]
    behind = (logits.amax(dim=2) - right).masked_fill(targets < 0, 0)
    return behind.mean(dim=1)


def gain(logits: Tensor, batch: WindowBatch) -> Tensor:
    """The same with a negative sign and a shift, so that all losses are negative."""
    return margin(logits, batch) - 100


def cross_entropy(logits: Tensor, batch: WindowBatch) -> Tensor:
    """The published loss, by the plainest way: the mean over predictions, times their number and one."""
    nll = F.cross_entropy(logits.transpose(1, 2).float(), batch.targets, reduction="none")  # -100 is ignored
    predictions = (batch.targets >= 0).sum(dim=1)
    return nll.sum(dim=1) / predictions * (predictions + 1)


def scalar(logits: Tensor, batch: WindowBatch) -> Tensor:
    """No loss of each window."""
    return logits.float().mean()


def counts(logits: Tensor, batch: WindowBatch) -> Tensor:
    """Whole numbers."""
    return (logits.argmax(dim=2) == batch.targets).sum(dim=1)


def undefined(logits: Tensor, batch: WindowBatch) -> Tensor:
    """Not a number."""
    return torch.full((len(logits),), torch.nan)


def number(logits: Tensor, batch: WindowBatch) -> float:
    """No tensor."""
    return 0.5


def broken(logits: Tensor, batch: WindowBatch) -> Tensor:
    """An error over two lines."""
    raise KeyError("a\nb")


def loudness(logits: Tensor, batch: WindowBatch) -> Tensor:
    """How large the logits are: a criterion by which other blocks go."""
    return logits.float().square().mean(dim=(1, 2))
