"""What a `Trainer` holds, as `SLEBPruner` needs it: the model itself, and data that have passed the collator."""

from pathlib import Path
from typing import Any

from accelerate.data_loader import IterableDatasetShard
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from .calibration.rows import Batches
from .errors import CalibrationError, UnsupportedModelError


def model_of(trainer: Any) -> PreTrainedModel:
    """The model that a Trainer trains, out of what was wrapped around it.

    Args:
        trainer: A `transformers.Trainer`, or a subclass such as TRL's `SFTTrainer`.

    Returns:
        The model. Whether it can be pruned is for `SLEBPruner` to find out.

    Raises:
        UnsupportedModelError: If its weights are sharded over processes.

    Example:
        ```python
        model = model_of(trainer)
        ```
    """
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        raise UnsupportedModelError(
            "The trainer shards the model's weights over processes (FSDP or DeepSpeed); save the model "
            "(trainer.save_model(folder)) and prune what was saved (SLEBPruner.from_pretrained(folder))."
        )
    return without_autocast(trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False))


def without_autocast(model: PreTrainedModel) -> PreTrainedModel:
    """Take off, in place, the mixed precision that accelerate puts around the forward of a model in training.

    Args:
        model: The model, which may have been trained with `bf16=True`, several times.

    Returns:
        The model, which computes in the precision of its weights.

    Example:
        ```python
        without_autocast(trainer.model)
        ```
    """
    original = vars(model).pop("_original_forward", None)
    if original is not None:
        if hasattr(model, "_hf_hook"):  # accelerate's hooks of a model on several devices lie beneath
            model.forward = original
        else:
            del model.forward
    return model


def calibration_of(trainer: Any, dataset: Any = None) -> Batches | None:
    """The data that a Trainer evaluates on, else those that it trains on, through its collator and in their order.

    Args:
        trainer: The Trainer.
        dataset: A data set of the kind that the Trainer takes, instead of its own.

    Returns:
        The batches, the same ones in every process; `None` for a Trainer without data.

    Raises:
        CalibrationError: If it evaluates on several data sets, or the given one is not tokenised as its own are.

    Example:
        ```python
        pruner.prune(config, calibration=calibration_of(trainer))
        ```
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
        # Not its own loader for them, which shuffles; nor the eval one, which may be kept for later evaluations.
        loader = trainer.get_test_dataloader(trainer.train_dataset)
        return _batches_of(trainer, loader, "the trainer's train data set")
    return None


def origin_of(trainer: Any) -> str | None:
    """Where a model that was trained can be found: it is no longer the model that its name says.

    Args:
        trainer: The Trainer.

    Returns:
        The absolute path of the Trainer's output folder; `None` where nothing was trained, so that the name holds.

    Example:
        ```python
        origin_of(trainer)  # "/home/me/runs/smollm2-sft"
        ```
    """
    return str(Path(trainer.args.output_dir).absolute()) if trainer.state.global_step else None


def switch_cache_on(model: PreTrainedModel) -> None:
    """Undo what every Trainer does to its model's config, in place: saved so, it would generate without a cache.

    Args:
        model: The model.

    Example:
        ```python
        switch_cache_on(trainer.model)
        ```
    """
    model.config.use_cache = True


def _check_tokenised(trainer: Any, dataset: Any) -> None:
    """Some trainers, TRL's among them, tokenise their data sets when they are made, and no others later."""
    columns = getattr(dataset, "column_names", None)
    if columns and "input_ids" not in columns and trainer.args.remove_unused_columns:
        raise CalibrationError(
            f"The data set has the columns {', '.join(columns)}, but no input_ids for the trainer's collator; give "
            "rows that are tokenised as the trainer's own, such as trainer.eval_dataset."
        )


def _batches_of(trainer: Any, prepared: DataLoader, source: str) -> Batches:
    """What a Trainer's loader gives to its model, but not shared out among processes."""
    # Columns that the model does not take are gone from the data set by now, or go in the collator.
    whole = prepared.dataset
    if isinstance(whole, IterableDatasetShard):
        whole = whole.dataset
    batch_size = trainer.args.per_device_eval_batch_size
    loader = DataLoader(whole, batch_size=batch_size, collate_fn=prepared.collate_fn)
    return Batches(loader, source, padding=_padding_of(trainer.processing_class))


def _padding_of(processing_class: Any) -> int | None:
    """The padding token, unless it also starts texts, as GPT-2's may."""
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    padding = getattr(tokenizer, "pad_token_id", None)
    return None if padding == getattr(tokenizer, "bos_token_id", None) else padding
