"""The output folder: written completely or not at all, then read back and compared with the model in memory."""

import shutil
import warnings
from collections.abc import Callable
from glob import escape
from pathlib import Path
from uuid import uuid4

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from ..blocks.forward import evaluating, logits_of, same_logits
from ..blocks.offload import offloaded
from ..blocks.runner import BlockRunner
from ..blocks.stack import find_decoder_stack, probe_ids
from ..blocks.surgery import attn_implementation_of
from ..errors import OutputFolderError, PushError, VerificationError
from ..models.auto import auto_class_of
from ..models.quantised import quantisation_of
from ..runtime.memory import too_large, weight_bytes
from .records import RECORDS, WEIGHTS


def check_output_folder(directory: Path, overwrite: bool) -> None:
    """Refuse a folder that cannot take a model, before the long work starts.

    If an earlier save was killed after it moved the folder aside, move the folder back, with the journal in it.
    """
    aside = _siblings(directory, "old")
    if len(aside) == 1 and not directory.exists():
        aside[0].rename(directory)
    if directory.exists() and not directory.is_dir():
        raise OutputFolderError(f"{directory} is a file; name a folder.")
    weights = [path.name for pattern in WEIGHTS for path in directory.glob(pattern)] if directory.is_dir() else []
    if weights and not overwrite:
        raise OutputFolderError(
            f"{directory} already holds a model ({weights[0]}); choose another folder, or allow it to be replaced "
            "(overwrite=True, --overwrite)."
        )


def write_folder(directory: Path, fill: Callable[[Path], None], overwrite: bool) -> None:
    """Fill a temporary sibling, then rename it, so that a failure leaves the old folder or the new one, never a mix.

    Files of the old folder that are not part of a model, such as logs, are moved to the new one.
    """
    check_output_folder(directory, overwrite)
    for left in _siblings(directory, "new"):
        warnings.warn(
            f"{left} was left by a save that was killed; delete it, unless another program is saving to {directory}.",
            stacklevel=2,
        )
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        fresh = directory.with_name(f".{directory.name}.{uuid4().hex[:8]}.new")
        fresh.mkdir()
    except OSError as error:
        raise OutputFolderError(f"{directory} cannot be written ({error}); choose another folder.") from error
    try:
        fill(fresh)
        _swap(fresh, directory)
    except Exception as error:
        if isinstance(error, OutputFolderError) or not _is_of_the_disk(error):
            raise
        raise OutputFolderError(f"{directory} cannot be written ({error}); the folder is as it was.") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def save_model(
    directory: Path,
    model: PreTrainedModel,
    processing_class: PreTrainedTokenizerBase | ProcessorMixin | None,
    max_shard_size: str = "50GB",
) -> None:
    """Save a model with its tokenizer or processor, and read it back; `max_shard_size` is a size such as `"5GB"`."""
    model.save_pretrained(directory, max_shard_size=max_shard_size)
    if processing_class is not None:
        processing_class.save_pretrained(directory)
    read_back(directory, model)


def read_back(directory: Path, model: PreTrainedModel) -> None:
    """Load a saved model with plain transformers; raise VerificationError if its logits differ from `model`'s."""
    again, loading = auto_class_of(model).from_pretrained(
        directory,
        dtype="auto",
        attn_implementation=attn_implementation_of(model.config),
        output_loading_info=True,
        # The code in the folder is the code that the model in memory already runs.
        trust_remote_code=model._auto_class is not None,
        **({} if quantisation_of(model) is None else {"device_map": {"": model.device}}),
    )
    wrong = sorted({*loading["missing_keys"], *loading["unexpected_keys"], *map(str, loading["mismatched_keys"])})
    if wrong:
        raise VerificationError(
            f"The saved model does not load: {len(wrong)} weights are missing, unexpected or of another shape (the "
            f"first is {wrong[0]}); nothing was written. Please report this architecture."
        )
    if not same_logits(_logits_on(model.device, again), _logits_on(model.device, model)):
        raise VerificationError(
            "The saved model gives other logits than the model in memory; nothing was written. Please report this "
            "architecture."
        )


def check_saved(directory: Path, model: PreTrainedModel) -> None:
    """Raise PushError if the folder no longer holds the model in memory."""
    try:
        read_back(directory, model)
    except (OSError, VerificationError) as error:
        raise PushError(
            f"{directory} no longer holds the model in memory, as one of them was changed or removed since; save it "
            "again (save_pretrained(..., overwrite=True)) and push then."
        ) from error


def _logits_on(device: torch.device, model: PreTrainedModel) -> Tensor:
    """Return the logits of a few probe tokens, computed on a device that need not hold the whole model."""
    ids = probe_ids(model)
    if model.device != device and too_large(weight_bytes(model), device) is not None:
        stack = find_decoder_stack(model)
        with offloaded(model, stack, device) as there, BlockRunner(model, there) as runner:
            stream = runner.run(runner.start(ids), range(len(stack)))
            return runner.logits(stream.hidden, ids)
    if model.device != device:
        model = model.to(device)
    with evaluating(model):
        return logits_of(model, ids)


def _siblings(directory: Path, ending: str) -> list[Path]:
    """Return folders left by killed saves beside this one: the earlier folder (`old`) or an unfinished one (`new`)."""
    return sorted(directory.parent.glob(f".{escape(directory.name)}.{'[0-9a-f]' * 8}.{ending}"))


def _is_of_the_disk(error: Exception) -> bool:
    # On a full disk, safetensors raises an error of its own, and tokenizers a bare Exception.
    return isinstance(error, OSError | SafetensorError) or type(error) is Exception


def _swap(fresh: Path, directory: Path) -> None:
    if not directory.exists():
        fresh.rename(directory)
        return
    old = fresh.with_suffix(".old")
    directory.rename(old)
    try:
        fresh.rename(directory)
    except BaseException:  # a signal as well
        old.rename(directory)
        raise
    try:
        for path in old.iterdir():
            belongs_to_old_model = any(path.match(pattern) for pattern in (*WEIGHTS, *RECORDS))
            if not belongs_to_old_model and not (directory / path.name).exists():
                path.rename(directory / path.name)
        shutil.rmtree(old)
    except OSError as error:
        raise OutputFolderError(
            f"{directory} holds the new model, but files of the old folder are still in {old} ({error}); move those "
            "that you need, and delete it."
        ) from error
