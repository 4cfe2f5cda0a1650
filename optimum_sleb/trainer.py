"""Access to the model and the data of a `transformers.Trainer`, for pruning."""

from pathlib import Path
from typing import Any

from accelerate.data_loader import IterableDatasetShard
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from .calibration.rows import Batches
from .errors import CalibrationError, UnsupportedModelError


def model_of(trainer: Any) -> PreTrainedModel:
    """Return the unwrapped model of a Trainer; raise UnsupportedModelError if FSDP or DeepSpeed shards its weights."""
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        raise UnsupportedModelError(
            "The trainer shards the model's weights over processes (FSDP or DeepSpeed); save the model "
            "(trainer.save_model(folder)) and prune what was saved (SLEBPruner.from_pretrained(folder))."
        )
    return remove_autocast(trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False))


def remove_autocast(model: PreTrainedModel) -> PreTrainedModel:
    """Remove, in place, the mixed-precision wrapper that accelerate puts around `forward` in training."""
    original = vars(model).pop("_original_forward", None)
    if original is not None:
        if hasattr(model, "_hf_hook"):  # then `original` is the forward with accelerate's device hooks
            model.forward = original
        else:
            del model.forward
    return model


def calibration_of(trainer: Any, dataset: Any = None) -> Batches | None:
    """Return the Trainer's eval data, else its train data, as collated batches; `None` without data.

    `dataset` is used instead if given. Order and batches are the same in every process; nothing is shuffled.
    """
    if dataset is not None:
        _check_tokenised(trainer, dataset)
        loader = trainer.get_test_dataloader(dataset)
        return _batches_of(trainer, loader, "a data set, through the trainer's collator")
    if isinstance(trainer.eval_dataset, dict):
        names = ", ".join(map(repr, trainer.eval_dataset))
        raise CalibrationError(
            f"The trainer evaluates on several data sets ({names}); say which to calibrate on: "
            "from_trainer(trainer, dataset=trainer.eval_dataset[name]), or for a callback SLEBCallback(trainer, "
            "config, dataset=trainer.eval_dataset[name])."
        )
    if trainer.eval_dataset is not None:
        return _batches_of(trainer, trainer.get_eval_dataloader(), "the trainer's eval data set")
    if trainer.train_dataset is not None:
        # Not the train loader, which shuffles; not the eval loader, which the Trainer may keep for later evaluations.
        loader = trainer.get_test_dataloader(trainer.train_dataset)
        return _batches_of(trainer, loader, "the trainer's train data set")
    return None


def training_data_of(trainer: Any) -> Batches:
    """Return the Trainer's train data as collated batches, in their order; raise CalibrationError without data."""
    if trainer.train_dataset is None:
        raise CalibrationError("The trainer has no train data set to heal on; give it one, or leave heal_steps out.")
    loader = trainer.get_test_dataloader(trainer.train_dataset)
    return _batches_of(trainer, loader, "the trainer's train data set")


def trained_model_path(trainer: Any) -> str | None:
    """Return the Trainer's output folder as origin of a trained model; `None` where nothing was trained yet."""
    return str(Path(trainer.args.output_dir).absolute()) if trainer.state.global_step else None


def switch_cache_on(model: PreTrainedModel) -> None:
    """Set `config.use_cache`, which every Trainer switches off; saved so, the model would generate without a cache."""
    model.config.use_cache = True


def _check_tokenised(trainer: Any, dataset: Any) -> None:
    # Some trainers, such as those of TRL, tokenise their data sets when they are created, and no later ones.
    columns = getattr(dataset, "column_names", None)
    if columns and "input_ids" not in columns and trainer.args.remove_unused_columns:
        raise CalibrationError(
            f"The data set has the columns {', '.join(columns)}, but no input_ids for the trainer's collator; give "
            "rows that are tokenised as the trainer's own, such as trainer.eval_dataset."
        )


def _batches_of(trainer: Any, prepared: DataLoader, source: str) -> Batches:
    """Return the batches of a Trainer's loader, without its split over processes."""
    # The data set or the collator has already dropped the columns that the model does not take.
    whole = prepared.dataset
    if isinstance(whole, IterableDatasetShard):
        whole = whole.dataset
    batch_size = trainer.args.per_device_eval_batch_size
    loader = DataLoader(whole, batch_size=batch_size, collate_fn=prepared.collate_fn)
    return Batches(loader, source, padding=_padding_of(trainer.processing_class))


def _padding_of(processing_class: Any) -> int | None:
    """Return the id of the padding token; `None` if it is also the BOS token, as it can be for GPT-2."""
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    padding = getattr(tokenizer, "pad_token_id", None)
    return None if padding == getattr(tokenizer, "bos_token_id", None) else padding
