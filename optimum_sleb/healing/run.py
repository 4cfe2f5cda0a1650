"""One healing: rows, number of steps, teacher and training, in a folder from which it can go on."""

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import PreTrainedModel, set_seed

from ..blocks.state import restored_on_error
from ..calibration.loaded import LoadedWindows
from ..models.fingerprint import weights_hash
from ..models.positions import check_positions
from ..report.records import HealingRecord
from ..runtime.logs import get_logger
from ..runtime.undo import undoing
from ..trainer import switch_cache_on
from .adapters import merged, with_adapter
from .budget import Budget
from .checkpoints import Clock, keep_in_run, last_checkpoint, open_run, restore, state_in
from .data import rows_of
from .packing import batch_of, can_be_packed, packed
from .settings import Settings
from .teacher import Lesson, LiveTeacher, Teacher, written_teacher
from .trainer import HealingArguments, HealingTrainer, training_arguments

logger = get_logger(__name__)
# Steps that are timed for a budget in minutes, after those that warm up.
_WARM_STEPS, _TIMED_STEPS = 2, 5


@dataclass(frozen=True)
class Place:
    """Where a healing keeps its checkpoints and logs."""

    folder: Path
    keeps: bool  # the folder stays, so that checkpoints are of use
    resume: bool


@dataclass
class Healing:
    """A model in training; `train` is called once."""

    model: PreTrainedModel
    settings: Settings
    budget: Budget
    loaded: LoadedWindows
    place: Place
    lesson: Lesson | None
    packing: bool
    options: dict[str, Any]  # of the Trainer
    processes: HealingArguments  # which know how many train together

    def train(self) -> HealingRecord:
        """Train the model in place, and return how it was healed; after an error it is as it was, as far as it can."""
        with restored_on_error(self.model, trains=self.settings.rank is None):
            trainer, record = self._trained()
        with undoing(lambda: self._finish(trainer)):  # no interrupt leaves half of an adapter merged
            return record

    def _trained(self) -> tuple[HealingTrainer, HealingRecord]:
        self.loaded.windows.check_vocabulary(self.model.get_input_embeddings().num_embeddings)
        check_positions(self.loaded.windows.lengths, self.model)
        with self._first_process_first():  # it writes what the others read
            kept = self._open()
            checkpoint, seconds = last_checkpoint(self.place.folder)
        rows = self._rows()
        with self._first_process_first():
            teacher = self._teacher(rows)
        if self.settings.rank is None:
            self.model.float()  # in half precision, small updates are rounded away
        set_seed(self.settings.seed)  # adapters begin at random
        rank = self.settings.rank
        trained = self.model if rank is None else with_adapter(self.model, rank)
        tokens, batch_size = sum(map(len, rows["input_ids"])), self.settings.batch_size
        steps = self.budget.steps_for(len(rows), tokens, batch_size) or kept.get("steps")

        def trainer_of(settings: Settings, steps: int, clock: Clock, **more: Any) -> HealingTrainer:
            options = {**self.options, **more}
            folder, saves = self.place.folder, self.place.keeps
            arguments = training_arguments(settings, self.model, folder, steps, saves, options)
            return HealingTrainer(
                trained, arguments, teacher=teacher, train_dataset=rows, data_collator=batch_of, callbacks=[clock]
            )

        if steps is None:
            (steps,) = broadcast_object_list([self._steps_of_minutes(trainer_of)])  # that of the first process
            if self.place.keeps and self.processes.process_index == 0:
                keep_in_run(self.place.folder, {"steps": steps})
        rounds = steps / -(-len(rows) // batch_size)
        logger.info(
            f"{self._method()} on {self.loaded.source}: {steps:,} steps of {batch_size} rows, "
            f"{rounds * tokens:,.0f} tokens, {rounds:.1f} times the rows."
        )
        # Several processes would not stop at the same step.
        minutes = self.budget.minutes if self.processes.world_size == 1 else None
        trainer = trainer_of(self.settings, steps, clock := Clock(seconds, minutes))
        if checkpoint is not None and clock.is_over(state := state_in(checkpoint), steps):
            restore(trained, checkpoint)  # the Trainer would take one more step
        else:
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
            state, seconds = trainer.state, clock.seconds
        if rank is not None and self.place.keeps:
            trainer.save_model(str(self.place.folder))
        done = state.global_step, seconds, int(state.num_input_tokens_seen)
        return trainer, HealingRecord(self._method(), self.loaded.source, *done)

    def _open(self) -> dict[str, Any]:
        if not self.place.keeps:
            return {}
        header = {
            **asdict(self.settings),
            **{name: value for name, value in asdict(self.budget).items() if value is not None},
            "data": self.loaded.windows.fingerprint,
            "model": weights_hash(self.model),
            "teacher": None if self.lesson is None else self.lesson.fingerprint,
            "teacher_top_k": None if self.lesson is None or self.lesson.cache is None else self.lesson.top_k,
            "packing": self.packing,
            "options": {name: repr(value) for name, value in sorted(self.options.items()) if name != "report_to"},
        }
        resume = self.place.resume or self.processes.process_index > 0
        return open_run(self.place.folder, header, resume)

    def _first_process_first(self) -> AbstractContextManager[None]:
        return self.processes.main_process_first(local=False)

    def _rows(self) -> Dataset:
        """Return the rows to train on, packed where that saves anything and the model takes it, with their numbers."""
        rows = rows_of(self.loaded.windows)
        length = max(self.settings.window_length, *self.loaded.windows.lengths)  # tokenised rows are never cut
        if self.packing and min(self.loaded.windows.lengths) <= length // 2:
            if can_be_packed(self.model):
                rows = packed(rows, length)
            else:
                logger.info(f"{type(self.model).__name__} does not tell packed rows apart, so that they are padded.")
        if len(rows) < self.settings.batch_size:
            logger.warning(f"Each step has only the {len(rows)} rows of the data; give more, or a smaller batch_size.")
        return rows if self.lesson is None else rows.add_column("row", list(range(len(rows))))

    def _teacher(self, rows: Dataset) -> Teacher | None:
        if self.lesson is None:
            return None
        if self.lesson.cache is None:
            return LiveTeacher(self.lesson.load(self.model))
        data = f"{self.loaded.windows.fingerprint} {'packed' if 'seq_lengths' in rows.column_names else 'padded'}"
        return written_teacher(self.lesson.cache, self.lesson, self.model, rows, data, self.settings.micro_batch_size)

    def _steps_of_minutes(self, trainer_of: Any) -> int:
        """Return how many steps the minutes allow, by a few that are timed: at a rate of 0 they change nothing."""
        timed = replace(self.settings, learning_rate=0.0)
        clock = Clock()
        trainer = trainer_of(timed, _WARM_STEPS + _TIMED_STEPS, clock, save_strategy="no", report_to="none")
        trainer.train()
        trainer.end()
        seconds = (clock.step_times[-1] - clock.step_times[_WARM_STEPS - 1]) / _TIMED_STEPS
        return max(1, int(60 * (self.budget.minutes or 0.0) / seconds))

    def _finish(self, trainer: HealingTrainer) -> None:
        trainer.end()
        if self.settings.rank is not None:
            merged(trainer.model)
        switch_cache_on(self.model)
        self.model.eval()

    def _method(self) -> str:
        """Return what was trained, in words for the report."""
        adapter = f"LoRA of rank {self.settings.rank}, merged"
        if self.lesson is None:
            return "full fine-tuning" if self.settings.rank is None else adapter
        of_teacher = f"distillation from {self.lesson.name}"
        return of_teacher if self.settings.rank is None else f"{of_teacher}, {adapter}"
