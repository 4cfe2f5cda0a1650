"""What a healing is made with, with defaults by the size of the model (docs/healing.md)."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from math import isfinite, sqrt
from typing import Any, Literal, get_args

from transformers import PreTrainedModel, TrainingArguments

from ..config import SLEBConfig
from ..errors import ConfigError
from ..models.quantised import quantisation_of
from ..runtime.json import shown
from .needs import check_installed

Method = Literal["lora", "full", "distill"]
Loss = Literal["auto", "labels", "next_token"]
RANK = 64
# What was measured, on a model of this size; a larger one learns at a rate that falls with the root of its size.
_MEASURED_SIZE = 135e6
_RATE_OF_LORA, _RATE_OF_ALL = 2e-3, 2e-4
# Rows in one forward and backward pass, for models of up to so many parameters; above, activations are recomputed.
_MICRO_BATCHES = ((500e6, 16), (2e9, 8), (float("inf"), 4))
_RECOMPUTED_ABOVE = 2e9
# How data are read: fields of the recipe that calibration has as well.
READING = (
    *("dataset_config", "dataset_split", "dataset_revision", "encoding", "shuffle_buffer", "text_column"),
    *("document_separator", "num_samples", "bos_per_window"),
)
# Decided here, or by other arguments of `heal`.
_NOT_OF_THE_TRAINER = {
    *("output_dir", "max_steps", "num_train_epochs", "learning_rate", "seed", "data_seed", "report_to"),
    *("gradient_accumulation_steps", "remove_unused_columns", "resume_from_checkpoint", "auto_find_batch_size"),
    *("do_train", "do_eval", "do_predict", "push_to_hub", "save_only_model", "load_best_model_at_end"),
    *("dataloader_drop_last", "accelerator_config", "parallelism_config"),  # a step would have fewer rows
}


@dataclass(frozen=True)
class Settings:
    """What a healing is made with, apart from model, data and budget."""

    method: Method
    rank: int | None  # of the adapter; None: all weights are trained
    learning_rate: float
    batch_size: int  # rows in a step, over all processes
    micro_batch_size: int  # rows in one pass of one process, at most
    window_length: int
    loss: Loss
    seed: int
    recomputes: bool  # activations in the backward pass

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        method: Method,
        rank: int | None,
        learning_rate: float | None,
        batch_size: int,
        window_length: int,
        loss: Loss,
        seed: int,
    ) -> "Settings":
        """Return the settings for a model; refuse values that cannot be."""
        for name, value, values in (("method", method, Method), ("loss", loss, Loss)):
            if value not in get_args(values):
                raise ConfigError(f"{name} must be one of {', '.join(get_args(values))}; got {shown(value)}.")
        if method == "full" and rank is not None:
            raise ConfigError(f"rank={shown(rank)} is of an adapter, but method='full' has none; leave it out.")
        if rank is None and method != "lora" and (quantised := quantisation_of(model)) is not None:
            raise ConfigError(
                f"The model is quantised ({quantised}), so its weights cannot be trained; train an adapter "
                "(method='lora', or rank=64), or load it unquantised."
            )
        rank = RANK if method == "lora" and rank is None else rank
        least = {"rank": 1, "batch_size": 1, "window_length": 2, "seed": 0}
        given = {"rank": rank, "batch_size": batch_size, "window_length": window_length, "seed": seed}
        for name, number in given.items():
            if number is not None and not (type(number) is int and least[name] <= number < 2**31):
                raise ConfigError(f"{name} must be a whole number of at least {least[name]}; got {shown(number)}.")
        size = model.num_parameters()
        rate = learning_rate
        if rate is None:
            rate = (_RATE_OF_ALL if rank is None else _RATE_OF_LORA) * min(1.0, sqrt(_MEASURED_SIZE / size))
        if type(rate) not in (int, float) or not isfinite(rate) or rate <= 0:
            raise ConfigError(f"learning_rate must be a number above 0; got {shown(rate)}.")
        if rank is not None:
            check_installed("peft", "Adapters are trained")
        micro = next(rows for most, rows in _MICRO_BATCHES if size <= most)
        return cls(method, rank, rate, batch_size, micro, window_length, loss, seed, size > _RECOMPUTED_ABOVE)

    def rows_in_a_pass(self, processes: int, most: Any) -> int:
        """Return how many rows a process computes at a time, at most so many, so that all steps have `batch_size`."""
        if type(most) is not int or most < 1:
            raise ConfigError(f"per_device_train_batch_size must be a whole number of at least 1; got {shown(most)}.")
        own, rest = divmod(self.batch_size, processes)
        if rest:
            near = " or ".join(str(number * processes) for number in (own, own + 1) if number)
            raise ConfigError(f"{processes} processes cannot share batch_size={self.batch_size}; choose {near}.")
        return next(size for size in range(min(most, own), 0, -1) if own % size == 0)


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of reading data and those of the Trainer; refuse what is neither.

    >>> split_options({"text_column": "body", "weight_decay": 0.1})
    ({'text_column': 'body'}, {'weight_decay': 0.1})
    """
    of_trainer = {field.name for field in fields(TrainingArguments) if field.init} - _NOT_OF_THE_TRAINER
    for name in options:
        if name not in READING and name not in of_trainer:
            near = [] if name in _NOT_OF_THE_TRAINER else get_close_matches(name, [*READING, *of_trainer], n=1)
            remedy = f"did you mean {near[0]}? Change it" if near else "leave it out"
            raise ConfigError(
                f"There is no argument {name[:60]!r} of heal, of reading data or of the Trainer that can be set; "
                f"{remedy}."
            )
    reading = {name: value for name, value in options.items() if name in READING}
    return reading, {name: value for name, value in options.items() if name not in READING}


def reading_recipe(settings: Settings, rows: int, reading: Mapping[str, Any]) -> SLEBConfig:
    """Return the recipe by which data are read: so many windows, and of named data sets enough documents for them."""
    return SLEBConfig(
        num_blocks_to_remove=1,  # no block is removed, but every recipe says how many
        window_length=settings.window_length,
        max_windows=rows,
        seed=settings.seed,
        **{"num_samples": 40_000, **reading},
    )
