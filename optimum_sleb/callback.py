"""Callback that prunes the best checkpoint at the end of a training."""

import os
from inspect import signature
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .calibration.sources import load_calibration
from .config import SLEBConfig, recipe_of
from .errors import CalibrationError, ConfigError
from .healing.budget import Budget
from .healing.heal import heal
from .healing.needs import check_installed
from .hub.folder import check_output_folder
from .hub.healed import save_healed
from .models.positions import check_positions, fit_windows
from .pruner import SLEBPruner
from .report.report import PruningReport
from .runtime.logs import get_logger
from .trainer import calibration_of, model_of, switch_cache_on, training_data_of

logger = get_logger(__name__)


class SLEBCallback(TrainerCallback):
    """Callback that prunes a trained model when the training ends, and saves it beside the Trainer's output folder.

    It loads the best checkpoint, prunes it, writes it to a folder of its own and logs the main numbers of the report
    with the Trainer. Where the Trainer does not track the best checkpoint, it takes the last one; where there is none,
    it saves the model first. The trained model in memory stays unchanged. If several processes train, the first one
    prunes and the others wait, at most `TrainingArguments.ddp_timeout` seconds.

    Problems of the model, the recipe, the calibration data or the folder are reported before the training starts, as
    far as they can be seen by then.

    Args:
        trainer: The Trainer, or TRL's `SFTTrainer`.
        config: The recipe; `None` makes one of the keywords.
        calibration: Calibration data, as `SLEBPruner.prune` takes them; `None` takes the Trainer's.
        dataset: Data to pass through the Trainer's collator and calibrate on; `None` takes its eval data set, else its
            train data set.
        output_dir: Folder for the pruned model; `None` is the Trainer's output folder with `-sleb` behind its name.
        overwrite: Replace a model that is there already.
        heal_steps: Train the pruned model for so many steps more, by `heal` with LoRA on the Trainer's train data, and
            save it with both records; `None` leaves it as it was cut. One process only.
        **kwargs: Fields of the recipe, as `SLEBPruner.prune` takes them.

    Raises:
        UnsupportedModelError: If the model cannot be pruned, such as one with PEFT adapters.
        ConfigError: If fewer blocks may go than the recipe asks for, or if the pruned model cannot be healed.
        CalibrationError: If the Trainer evaluates on several data sets and none is named, if both `calibration` and
            `dataset` are given, or if the data cannot be used.
        OutputFolderError: If the folder holds a model already.

    Example:
        ```python
        trainer.add_callback(SLEBCallback(trainer, sparsity=0.2))
        trainer.train()
        ```
    """

    def __init__(
        self,
        trainer: Any,
        config: SLEBConfig | None = None,
        *,
        calibration: Any = None,
        dataset: Any = None,
        output_dir: str | Path | None = None,
        overwrite: bool = False,
        heal_steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        if calibration is not None and dataset is not None:
            raise CalibrationError("Both calibration and dataset were given; calibrate on one of them.")
        self._trainer = trainer
        self._config = config = recipe_of(config, kwargs, signature(type(self)).parameters)
        self._calibration = calibration_of(trainer, dataset) if calibration is None else calibration
        trained = Path(trainer.args.output_dir)
        self._folder = Path(output_dir) if output_dir else trained.with_name(f"{trained.absolute().name}-sleb")
        self._overwrite = overwrite
        self._saved_at: int | None = None
        self._heal_steps = heal_steps
        if heal_steps is not None:
            _check_healing(trainer, heal_steps)
        check_output_folder(self._folder, overwrite)
        model = model_of(trainer)
        # The code in the checkpoint is the code that the model in memory already runs.
        self._loading = {"trust_remote_code": True} if model._auto_class is not None else {}
        blocks = SLEBPruner(model).blocks
        config.num_blocks_to_remove_of(len(blocks), blocks)
        if trainer.is_world_process_zero():
            loaded = load_calibration(self._calibration, trainer.processing_class, fit_windows(config, model))
            check_positions(loaded.windows.lengths, model)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check the folder again, for a second training, and move this callback to the front of the Trainer's list.

        It must run before callbacks such as TensorBoard's, which close their logs when the training ends.

        Args:
            args: Arguments of the training.
            state: State of the training.
            control: What the Trainer does next; not changed.
            **kwargs: Other values that the Trainer passes; not used.

        Raises:
            OutputFolderError: If the folder holds the model of an earlier training.

        Example:
            ```python
            trainer.train()  # calls it
            ```
        """
        check_output_folder(self._folder, self._overwrite)
        handler = self._trainer.callback_handler
        # A new list, because the Trainer is iterating over the old one.
        handler.callbacks = [self, *(callback for callback in handler.callbacks if callback is not self)]

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Remember the step of the last checkpoint of this training.

        Args:
            args: Arguments of the training.
            state: State of the training.
            control: What the Trainer does next; not changed.
            **kwargs: Other values that the Trainer passes; not used.

        Example:
            ```python
            trainer.train()  # calls it
            ```
        """
        self._saved_at = state.global_step

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Prune the checkpoint, save the result and log its numbers.

        Args:
            args: Arguments of the training.
            state: State of the training.
            control: What the Trainer does next; not changed.
            **kwargs: Other values that the Trainer passes; not used.

        Raises:
            SLEBError: If the model cannot be pruned or saved after all; the trained model is in its checkpoint.

        Example:
            ```python
            trainer.train()  # calls it
            ```
        """
        checkpoint = state.best_model_checkpoint
        # Compare the step too: the folder alone could be of an earlier training.
        if checkpoint is None and self._saved_at == state.global_step:
            checkpoint = f"{args.output_dir}/checkpoint-{state.global_step}"
        if checkpoint is None or not os.path.isdir(checkpoint):
            checkpoint = args.output_dir
            self._trainer.save_model(checkpoint)
        report = None
        try:
            if state.is_world_process_zero:
                report = self._prune(checkpoint)
        finally:
            self._trainer.accelerator.wait_for_everyone()
        if report is not None:
            self._trainer.log(_numbers_of(report))

    def _prune(self, checkpoint: str) -> PruningReport:
        tokenizer, device = self._trainer.processing_class, self._trainer.args.device
        pruner = SLEBPruner.from_pretrained(
            checkpoint, tokenizer=tokenizer, dtype="auto", device_map=device, **self._loading
        )
        switch_cache_on(pruner.model)
        pruner.prune(self._config, calibration=self._calibration)
        folder = pruner.save_pretrained(self._folder, overwrite=self._overwrite)
        if self._heal_steps is not None:
            heal(pruner.model, tokenizer, "lora", data=training_data_of(self._trainer), steps=self._heal_steps)
            save_healed(pruner.model, folder, overwrite=True)
        logger.info(f"{checkpoint} was pruned and saved to {folder}.\n{pruner.report.summary()}")
        return pruner.report


def _check_healing(trainer: Any, steps: int) -> None:
    Budget(steps=steps)
    check_installed("peft", "The pruned model is healed (heal_steps)")
    training_data_of(trainer)
    if trainer.args.world_size > 1:
        raise ConfigError(
            f"heal_steps={steps} heals in one process, but {trainer.args.world_size} train; leave it out, and heal "
            "what is saved (optimum-cli sleb heal)."
        )


def _numbers_of(report: PruningReport) -> dict[str, float]:
    """Return the numbers of the report that a logger can plot."""
    numbers = {
        "blocks_before": len(report.blocks_before),
        "blocks_after": len(report.blocks_after),
        "parameters_before": report.parameters_before,
        "parameters_after": report.parameters_after,
        "perplexity_before": report.perplexity_before,
        "perplexity_after": report.perplexity_after,
        "criterion_before": report.criterion_before,
        "criterion_after": report.criterion_after,
        "seconds": report.seconds,
    }
    return {f"sleb_{name}": value for name, value in numbers.items() if value is not None}
