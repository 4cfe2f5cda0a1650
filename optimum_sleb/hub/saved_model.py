"""A model on the disk: saved, then loaded with plain transformers and compared with the model in memory."""

import copy
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from ..blocks.forward import evaluating, logits_of, same_logits
from ..blocks.offload import offloaded
from ..blocks.runner import open_runner
from ..blocks.stack import find_decoder_stack, probe_ids
from ..blocks.surgery import attn_implementation_of
from ..errors import PushError, UnsupportedModelError, VerificationError
from ..models.auto import auto_class_of
from ..models.checks import head_is_untied
from ..models.quantised import quantisation_of
from ..runtime.memory import too_large, weight_bytes
from .companions import Origin, copy_companions


def check_can_be_saved(
    model: PreTrainedModel, processing_class: PreTrainedTokenizerBase | ProcessorMixin | None
) -> None:
    """Save all but the weights on trial; raise UnsupportedModelError where transformers refuses."""
    generation = model.generation_config if model.can_generate() else None
    parts = {"model.config": model.config, "model.generation_config": generation, "tokenizer": processing_class}
    for name, part in parts.items():
        if part is None:
            continue
        try:
            with TemporaryDirectory() as folder:
                copy.deepcopy(part).save_pretrained(folder)  # a copy, because saving edits a config
        except OSError:
            pass  # of the temporary folder, in which the model will not be saved
        except Exception as error:
            reason = " ".join(str(error).split())
            raise UnsupportedModelError(
                f"The {name} of this {type(model).__name__} could not be saved with the pruned model "
                f"({reason[:300]}); mend it, or load it again."
            ) from error


def save_model(
    directory: Path,
    model: PreTrainedModel,
    processing_class: PreTrainedTokenizerBase | ProcessorMixin | None,
    origin: Origin,
    max_shard_size: str = "50GB",
) -> None:
    """Save a model with its tokenizer or processor and the other files of its origin, and read it back.
    `max_shard_size` is a size such as `"5GB"`.
    """
    if head_is_untied(model):
        model.config.tie_word_embeddings = model.config.get_text_config(decoder=True).tie_word_embeddings = False
        warnings.warn(
            "The config says that the head shares the embeddings' weights (tie_word_embeddings), but it has its own; "
            "the config now says false, so that no other program ties them.",
            stacklevel=2,
        )
    model.save_pretrained(directory, max_shard_size=max_shard_size)
    if processing_class is not None:
        processing_class.save_pretrained(directory)
    copy_companions(origin, directory, processing_class)
    verify_saved_model(directory, model)


def verify_saved_model(directory: Path, model: PreTrainedModel) -> None:
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


def check_unchanged_since_save(directory: Path, model: PreTrainedModel) -> None:
    """Raise PushError if the folder no longer holds the model in memory."""
    try:
        verify_saved_model(directory, model)
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
        with offloaded(model, stack, device) as on_device, open_runner(model, on_device) as runner:
            stream = runner.run(runner.start(ids), range(len(stack)))
            return runner.logits(stream.hidden, ids)
    if model.device != device:
        model = model.to(device)
    with evaluating(model):
        return logits_of(model, ids)
