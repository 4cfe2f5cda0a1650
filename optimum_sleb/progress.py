"""Keeping the progress of a search on disk: the journal, and a report of the steps so far."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from transformers import PreTrainedModel

from .calibration.windows import TokenWindows
from .config import SLEBConfig
from .config_values import config_values
from .errors import ConfigError, JournalError
from .provenance import versions
from .report import PruningReport
from .search.journal import Journal

# So many elements of each tensor go into a model's fingerprint: enough to tell any two models apart in a moment.
_SAMPLES = 1024


class Progress:
    """Keeps the progress of a search in a folder, or nowhere.

    Args:
        folder: Folder of the journal and of the report of the steps so far; `None` keeps nothing.
        model: The model.
        blocks: Its blocks, by their number in the dense model.
        windows: The calibration windows.
        config: The recipe.
        resume: Go on from a journal that is there.
        device: The device that searches; `None` is the model's.

    Raises:
        ConfigError: If `resume` is set without a folder.
        JournalError: If there is a journal and `resume` is not set, or none and it is, or it is of another run.

    Example:
        ```python
        with Progress("smollm2-sleb-20", model, range(30), windows, config, resume=False) as progress:
            run_search(model, stack, windows, range(1, 29), config, journal=progress.journal)
        ```
    """

    def __init__(
        self,
        folder: str | Path | None,
        model: PreTrainedModel,
        blocks: Sequence[int],
        windows: TokenWindows,
        config: SLEBConfig,
        *,
        resume: bool,
        device: torch.device | None = None,
    ) -> None:
        if folder is None and resume:
            raise ConfigError("resume=True goes on from a journal; say with progress_dir where it is.")
        self._folder = folder
        self.journal: Journal | None = None
        if folder is not None:
            self.journal = Journal(
                folder, _header(model, blocks, windows, config, device or model.device), resume=resume
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.journal is not None:
            self.journal.close()

    def save(self, report: PruningReport) -> None:
        """Write the report of the steps so far, so that it survives a run that never ends.

        A folder that holds a model already keeps that model's report.

        Args:
            report: The report.

        Raises:
            JournalError: If the disk does not take it.

        Example:
            ```python
            progress.save(report)
            ```
        """
        if self._folder is None or any(Path(self._folder).glob("*.safetensors")):
            return
        try:
            report.save(self._folder)
        except OSError as error:
            raise JournalError(
                f"The report of the steps so far cannot be written to {self._folder} ({error}); make room and go on "
                "with resume=True (--resume)."
            ) from error


def model_fingerprint(model: PreTrainedModel) -> str:
    """A name for the weights of a model, from a sample of each tensor.

    Args:
        model: The model.

    Returns:
        SHA-256 over names, shapes and evenly spaced elements of all tensors.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=40))
        >>> model_fingerprint(model) == model_fingerprint(model)
        True
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        step = max(1, tensor.numel() // _SAMPLES)
        sample = tensor.detach().reshape(-1)[::step]
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(sample.to("cpu", torch.float64).numpy().tobytes())
    return digest.hexdigest()


def _header(
    model: PreTrainedModel, blocks: Sequence[int], windows: TokenWindows, config: SLEBConfig, device: torch.device
) -> dict[str, Any]:
    """All that decides what is measured, to the last bit."""
    return {
        "model": {
            "architecture": type(model).__name__,
            "blocks": list(blocks),
            "weights": model_fingerprint(model),
            "config": config_values(model.config),
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": device.type,
        },
        "data": windows.fingerprint,
        "recipe": config.to_dict(),
        "versions": versions(),
    }
