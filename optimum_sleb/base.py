"""The model that `SLEBPruner` prunes: how it is loaded, and which blocks it has."""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from .blocks.stack import find_decoder_stack
from .blocks.state import restored_on_error
from .blocks.verify import Removability
from .calibration.rows import Batches
from .hub.companions import Origin
from .hub.saved_model import check_can_be_saved
from .hub.saving import Saving
from .models.checks import check_causal_lm, check_model, check_saving_changes_nothing
from .models.loading import load_model, load_processing_class, load_report
from .models.placement import usable_device
from .models.provenance import check_report_matches_config, loading_arguments_of, model_name, provenance_of
from .runtime.turns import one_at_a_time
from .trainer import calibration_of, model_of, switch_cache_on, trained_model_path

P = ParamSpec("P")
T = TypeVar("T")
Pruner = TypeVar("Pruner", bound="BasePruner")


def all_or_nothing(method: Callable[Concatenate[Pruner, P], T]) -> Callable[Concatenate[Pruner, P], T]:
    """Let a method of a pruner leave model and pruner as they were, if it ends in an error or an interrupt."""

    @wraps(method)
    def call(self: Pruner, /, *args: P.args, **kwargs: P.kwargs) -> T:
        check_can_be_saved(self.model, self._processing_class)  # now, not after the search
        with restored_on_error(self.model, self):
            return method(self, *args, **kwargs)

    return one_at_a_time(call)


class BasePruner(Saving):
    """The part of `SLEBPruner` that takes a model, from a name, memory or a Trainer, and knows its blocks."""

    @one_at_a_time
    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | ProcessorMixin | None = None
    ) -> None:
        check_model(model)
        check_causal_lm(model)
        check_saving_changes_nothing(model)
        self.model = model
        self.tokenizer: PreTrainedTokenizerBase | None = getattr(tokenizer, "tokenizer", tokenizer)
        self._processing_class = tokenizer
        self._stack = find_decoder_stack(model)
        self._provenance = provenance_of(model, len(self._stack))
        self._base_model = model_name(model)
        self._report = None
        self._recipe = None
        self._loading: dict[str, str] = {}
        self._calibration: Batches | None = None  # data of a Trainer
        self._origin = Origin.of(model)
        self._folder = None

    @classmethod
    @one_at_a_time
    def from_pretrained(
        cls,
        model_name_or_path: str | Path,
        *,
        tokenizer: PreTrainedTokenizerBase | ProcessorMixin | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load a model to prune, with its tokenizer, and with its report if it was pruned before.

        Args:
            model_name_or_path: A model on the Hub or a local folder.
            tokenizer: The tokenizer or processor; `None` loads the one beside the model.
            **kwargs: Passed on to `AutoModelForCausalLM.from_pretrained`: `dtype`, `device_map`, `revision`,
                `gguf_file`, ... A GGUF file is dequantised, so that the result can be saved.

        Returns:
            The pruner.

        Raises:
            ModelNotFoundError: If there is no model there.
            UnsupportedModelError: If it cannot be pruned.
            ConfigError: If `device_map` names a device that is not there.
            ReportError: If the report beside it is malformed or belongs to another model.

        Example:
            ```python
            pruner = SLEBPruner.from_pretrained("HuggingFaceTB/SmolLM2-135M", dtype="auto", device_map="cuda")
            ```
        """
        name = str(model_name_or_path)
        if str(kwargs.get("device_map")).startswith("cuda"):
            usable_device(kwargs["device_map"])  # transformers would take a missing GPU for damaged files
        pruner = cls(load_model(name, **kwargs), tokenizer or load_processing_class(name, **kwargs))
        pruner._loading = loading_arguments_of(kwargs)
        pruner._origin = Origin.of_loading(name, kwargs, pruner._processing_class, own_tokenizer=tokenizer is None)
        earlier = load_report(name, **kwargs)
        if earlier is not None:
            check_report_matches_config(earlier, pruner._provenance, name)
            pruner._report = earlier
            pruner._base_model = earlier.base_model
        return pruner

    @classmethod
    @one_at_a_time
    def from_trainer(cls, trainer: Any, *, dataset: Any = None) -> Self:
        """Create a pruner for the model of a Trainer, which calibrates on the Trainer's data.

        The data pass the Trainer's collator, in order. Padding is not counted, packed sequences are separated, and
        with `SLEBConfig(loss="labels")` the loss is measured on the labels, as in training. The model is edited in
        place, so use a new Trainer to train further. `use_cache`, which every Trainer switches off, is switched on.

        Args:
            trainer: A `transformers.Trainer`, or a subclass such as TRL's `SFTTrainer`.
            dataset: Data to calibrate on; `None` takes the Trainer's eval data, else train data, else the recipe's.

        Returns:
            The pruner, with the Trainer's model and processing class.

        Raises:
            UnsupportedModelError: If the model cannot be pruned as it is (PEFT adapters, sharded weights, ...).
            CalibrationError: If the Trainer evaluates on several data sets and `dataset` does not name one.

        Example:
            ```python
            pruned = SLEBPruner.from_trainer(trainer).prune(SLEBConfig(sparsity=0.2, loss="labels"))
            ```
        """
        pruner = cls(model_of(trainer), trainer.processing_class)
        pruner._calibration = calibration_of(trainer, dataset)
        if (path := trained_model_path(trainer)) is not None:
            pruner._base_model, pruner._provenance = path, replace(pruner._provenance, base_model=None)
        switch_cache_on(pruner.model)
        return pruner

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks of the model as it is now, by their number in the dense model."""
        return self._provenance.blocks

    def __repr__(self) -> str:
        of = "" if self._base_model is None else f" of {self._base_model}"
        blocks = f"{len(self.blocks)} of {self._provenance.original_num_blocks} blocks"
        return f"{type(self).__name__}({type(self.model).__name__}{of}, {blocks})"

    @one_at_a_time
    def check(self) -> Removability:
        """Find out which blocks can be removed, each on its own; takes seconds and needs no calibration text.

        Returns:
            The blocks that can be removed, those that cannot, and why.

        Raises:
            UnsupportedModelError: If no block can be removed.

        Example:
            ```python
            print(pruner.check().summary())
            ```
        """
        return Removability.of(self.model, self._stack, self.blocks)
