"""The folder of a healing: what it is of, which of the Trainer's checkpoints are whole, and going on from the last."""

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

from accelerate import load_checkpoint_in_model
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..errors import JournalError
from ..runtime.files import replace_file
from ..runtime.json import read_json
from .headers import open_header

RUN_FILE_NAME = "healing.json"
# Written into a checkpoint when everything else in it is; one that a kill cut short has none.
_WHOLE = "healing_checkpoint.json"


def open_run(folder: Path, header: dict[str, Any], resume: bool) -> dict[str, Any]:
    """Write what a healing is of into its folder; return what was kept there by an earlier start of the same one.
    Refuse the folder of another training, and one of the same where `resume` does not ask to go on."""
    if not (folder / RUN_FILE_NAME).exists() and any(folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*")):
        # What this healing does not know would be removed as half written.
        raise JournalError(
            f"{folder} holds checkpoints of another training; name another folder (output_dir, --run-dir)."
        )
    found = open_header(folder / RUN_FILE_NAME, header)
    if found is None:
        return {}
    if not resume:
        raise JournalError(
            f"{folder} holds a healing that was begun; go on with it (resume=True, --resume), name another folder, or "
            "remove this one."
        )
    for name, value in header.items():
        if found[name] != json.loads(json.dumps(value)):
            raise JournalError(
                f"{folder} holds a healing with {name}={found[name]!r}, but now it is {value!r}; ask for the same, "
                "name another folder, or remove this one."
            )
    return found


def keep_in_run(folder: Path, values: dict[str, Any]) -> None:
    """Add values to what the folder of a healing keeps."""
    file = folder / RUN_FILE_NAME
    replace_file(file, json.dumps({**read_json(file), **values}))


def last_checkpoint(folder: Path) -> tuple[Path | None, float]:
    """Return the last whole checkpoint and the seconds of training up to it; remove what a kill left half written."""
    whole: dict[int, tuple[Path, float]] = {}
    for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        number = re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-([0-9]+)", path.name)
        if number is None or not path.is_dir():
            continue
        try:
            whole[int(number[1])] = path, float(read_json(path / _WHOLE)["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            shutil.rmtree(path, ignore_errors=True)
    return whole[max(whole)] if whole else (None, 0.0)


def state_in(checkpoint: Path) -> TrainerState:
    """Return the state of the training that is written in a checkpoint."""
    return TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))


def restore(model: Any, checkpoint: Path) -> None:
    """Put the weights, or the adapter, of a checkpoint into a model."""
    if not isinstance(model, PreTrainedModel):
        model.load_adapter(str(checkpoint), model.active_adapter, is_trainable=True)
    else:
        load_checkpoint_in_model(model, str(checkpoint))


def remove_checkpoints(folder: Path) -> None:
    """Remove what only an interrupted healing needs; logs, adapters and data of its own stay."""
    for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        shutil.rmtree(path)
    (folder / RUN_FILE_NAME).unlink(missing_ok=True)


class Clock(TrainerCallback):
    """Callback that counts the seconds of a training over all its starts, marks checkpoints as whole, and stops a
    training at a number of minutes."""

    def __init__(self, seconds: float = 0.0, minutes: float | None = None) -> None:
        self._before = seconds
        self._most = None if minutes is None else 60 * minutes
        self._began = 0.0
        self.step_times: list[float] = []

    @property
    def seconds(self) -> float:
        """Return the seconds of training up to now."""
        return self._before + time.perf_counter() - self._began

    def is_over(self, state: TrainerState, steps: int) -> bool:
        """Tell whether a training that was interrupted in this state had its steps or its minutes already."""
        return state.global_step >= steps or (self._most is not None and self._before >= self._most)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop the training, with a last checkpoint, when its time is over."""
        self.step_times.append(time.perf_counter())
        if self._most is not None and self.seconds >= self._most:
            control.should_training_stop = True
            control.should_save = args.save_strategy != "no"

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Mark the checkpoint that was written."""
        folder = Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")
        if state.is_world_process_zero and folder.is_dir():
            replace_file(folder / _WHOLE, json.dumps({"seconds": self.seconds}))
