"""The Trainer of a healing: its arguments, and the loss of a distillation. The training loop is transformers'."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from ..calibration.texts import first_line
from ..errors import ConfigError
from ..runtime.json import shown
from ..runtime.ranks import LONGEST_WAIT
from ..trainer import remove_autocast
from .settings import Settings
from .teacher import Teacher, counted_positions

# What the installed transformers calls it that activations are computed again in the backward pass.
_NEW, _OLD = "activation_checkpointing", "gradient_checkpointing"
RECOMPUTING = _NEW if hasattr(TrainingArguments, _NEW) else _OLD


class HealingArguments(TrainingArguments):
    """Arguments of a Trainer that takes one device in each process; a teacher may be on another one."""

    @property
    def n_gpu(self) -> int:
        """Return at most 1: with more the Trainer would spread a batch over all GPUs by `DataParallel`."""
        return min(1, int(super().n_gpu))


class HealingTrainer(Trainer):
    """A Trainer whose loss is the model's own, on labels, or with a teacher the divergence from what that says."""

    def __init__(self, *arguments: Any, teacher: Teacher | None = None, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._teacher = teacher
        if teacher is not None:
            # The Trainer counts the labels of all accumulated batches, and leaves the division to the loss.
            self.model_accepts_loss_kwargs = True

    def end(self) -> None:
        """Take off what a training puts around the model: autocast, recomputing, and hooks that recomputing needs."""
        remove_autocast(self.model)
        if self.args.gradient_checkpointing:
            getattr(self.model, f"{RECOMPUTING}_disable")()
            self.model.disable_input_require_grads()

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss of a batch: a mean over all positions with labels in the step."""
        rows = inputs.pop("rows", None)
        if self._teacher is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        counted = counted_positions(inputs.pop("labels"))
        outputs = model(**inputs)
        total = self._teacher.divergence(outputs.logits[counted], inputs, counted, rows)
        if num_items_in_batch is None:
            loss = total / counted.sum().clamp_min(1)
        else:
            loss = total / num_items_in_batch
            if self.args.average_tokens_across_devices:
                loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss


def checked_arguments(settings: Settings, model: PreTrainedModel, options: dict[str, Any]) -> HealingArguments:
    """Return arguments that know of all processes; refuse fields that the Trainer would refuse, and services that are
    not there."""
    try:
        arguments = training_arguments(settings, model, Path("run"), 1, False, options)
        for service in get_reporting_integration_callbacks(arguments.report_to):
            service()
        return arguments
    except ConfigError:
        raise
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        names = ", ".join(f"{name}={shown(value)}" for name, value in options.items())
        raise ConfigError(f"The Trainer cannot be made with {names} ({first_line(error)}); change that.") from error


def training_arguments(
    settings: Settings, model: PreTrainedModel, folder: Path, steps: int, saves: bool, options: dict[str, Any]
) -> HealingArguments:
    """Return the arguments of a training; `options` are fields that the user sets, and go first."""
    on_cpu = model.device.type == "cpu"
    every = max(1, steps // 10)
    defaults = {
        "lr_scheduler_type": "cosine",
        "warmup_steps": steps // 10,
        "bf16": not on_cpu and (model.device.type != "cuda" or torch.cuda.is_bf16_supported()),
        "use_cpu": on_cpu,
        "logging_steps": every,
        "save_strategy": "steps" if saves else "no",
        "save_steps": every,
        "save_total_limit": 2,
        "per_device_train_batch_size": settings.micro_batch_size,
        "report_to": "none",
        "include_num_input_tokens_seen": "all",
        "ddp_timeout": int(LONGEST_WAIT.total_seconds()),  # one process writes what the others read, and they wait
    }
    renamed = {name.replace(_OLD, RECOMPUTING): value for name, value in options.items()}
    given = {**defaults, RECOMPUTING: settings.recomputes, **renamed}
    arguments = HealingArguments(
        output_dir=str(folder),
        max_steps=steps,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        remove_unused_columns=False,  # the collator knows its columns
        **given,
    )
    micro = settings.rows_in_a_pass(arguments.world_size, arguments.per_device_train_batch_size)
    arguments.per_device_train_batch_size = micro
    arguments.gradient_accumulation_steps = settings.batch_size // (micro * arguments.world_size)
    return arguments
