"""Keeping the progress of a search on disk: the journal, and a report of the steps so far."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from .calibration.windows import TokenWindows
from .config import SLEBConfig
from .errors import JournalError
from .provenance import versions
from .report import PruningReport
from .search.journal import Journal

# So many elements of each tensor go into a model's fingerprint: enough to tell any two models apart in a moment.
_SAMPLES = 1024


def open_journal(
    folder: str | Path,
    model: PreTrainedModel,
    blocks: Sequence[int],
    windows: TokenWindows,
    config: SLEBConfig,
    *,
    resume: bool,
) -> Journal:
    """Open the journal of a run, or go on with one that is there.

    Args:
        folder: The folder that the journal stands in.
        model: The model.
        blocks: Its blocks, by their number in the dense model.
        windows: The calibration windows.
        config: The recipe.
        resume: Go on from a journal that is there.

    Returns:
        The journal.

    Raises:
        JournalError: If there is a journal and `resume` is not set, or none and it is, or it is of another run.

    Example:
        ```python
        with open_journal("smollm2-sleb-20", model, range(30), windows, config, resume=False) as journal:
            run_search(model, stack, windows, range(1, 29), config, journal=journal)
        ```
    """
    header: dict[str, Any] = {
        "model": {
            "architecture": type(model).__name__,
            "blocks": list(blocks),
            "weights": model_fingerprint(model),
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": model.device.type,
        },
        "data": windows.fingerprint,
        "recipe": config.to_dict(),
        "versions": versions(),
    }
    return Journal(folder, header, resume=resume)


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


def save_progress(report: PruningReport, folder: str | Path) -> None:
    """Write the report of the steps so far, so that it survives a run that never ends.

    Args:
        report: The report of the steps so far.
        folder: The folder that the model will be saved to. One that holds a model already keeps that model's report.

    Raises:
        JournalError: If the disk does not take it.

    Example:
        ```python
        save_progress(report, "smollm2-sleb-20")
        ```
    """
    if any(Path(folder).glob("*.safetensors")):
        return
    try:
        report.save(folder)
    except OSError as error:
        raise JournalError(
            f"The report of the steps so far cannot be written to {folder} ({error}); make room and go on with "
            "resume=True (--resume)."
        ) from error
