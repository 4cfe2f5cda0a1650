"""Saving a pruned model that was fine-tuned, with the report of the pruning."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from ..blocks.stack import find_decoder_stack
from ..blocks.surgery import attn_implementation_of
from ..errors import ReportError
from ..models.auto import auto_class_of
from ..models.checks import check_model
from ..models.loading import load_processing_class, load_report
from ..models.provenance import check_report_matches_config, provenance_of, set_model_name
from ..report.records import EvaluationRecord, HealingRecord
from ..report.report import PruningReport
from ..trainer import remove_autocast, switch_cache_on
from .card_update import healed_evaluations
from .companions import Origin, tokenizer_state
from .folder import write_folder
from .model_files import write_sleb_files
from .saved_model import save_model


def healing_record(trainer: Any, method: str, dataset: str) -> HealingRecord:
    """Return the record of how a Trainer fine-tuned a pruned model.

    Args:
        trainer: A `transformers.Trainer`, or TRL's `SFTTrainer`, after its training. It counts tokens only if its
            arguments have `include_num_input_tokens_seen="all"`.
        method: What was trained, such as `"full fine-tuning"`.
        dataset: Name of the data.

    Returns:
        The record, with the number of steps, the seconds of the last training and the tokens, if counted.

    Raises:
        ReportError: If the trainer has not finished a training yet.

    Example:
        ```python
        trainer.train()
        healing_record(trainer, "full fine-tuning", "wikitext2").tokens
        ```
    """
    seconds = [entry["train_runtime"] for entry in trainer.state.log_history if "train_runtime" in entry]
    if not seconds:
        raise ReportError("The trainer has not trained its model to the end, so nothing was healed; call train().")
    state = trainer.state
    tokens = int(state.num_input_tokens_seen) if trainer.args.include_num_input_tokens_seen != "no" else None
    return HealingRecord(method, dataset, state.global_step, seconds[-1], tokens)


def save_healed(
    model: PreTrainedModel,
    save_directory: str | Path,
    *,
    parent: str | Path | None = None,
    revision: str | None = None,
    healing: HealingRecord | None = None,
    evaluations: Sequence[EvaluationRecord] = (),
    tokenizer: PreTrainedTokenizerBase | ProcessorMixin | None = None,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
    max_shard_size: str = "50GB",
) -> PruningReport:
    """Write a fine-tuned pruned model as an ordinary folder, with the report and the card of its parent.

    The report of the parent is kept and extended by the healing and the new measurements; the card shows them beside
    the numbers of the pruned model. `use_cache` in the config, which every Trainer switches off, is switched on
    again. As with `SLEBPruner.save_pretrained`, the folder is written completely or not at all, and it is read back
    and compared with the model first.

    Args:
        model: The fine-tuned model, adapters merged. Only its cache setting, its name and a mixed-precision wrapper
            of the Trainer are changed.
        save_directory: The folder to write.
        parent: The pruned model that was fine-tuned: its folder, or its name on the Hub; `None` is where the model
            was loaded from or saved to.
        revision: Revision of a parent on the Hub; `None` is the one that `main` is.
        healing: How it was fine-tuned; see `healing_record`. `None` takes what `heal` remembers.
        evaluations: Measurements of the fine-tuned model. Where the pruned model was measured by the same protocol,
            the card shows both numbers.
        tokenizer: Its tokenizer or processor; `None` takes the parent's.
        dtype: Precision to save the model in; `None` takes the parent's, whatever precision it was trained in.
        overwrite: Replace a model that is in the folder already.
        max_shard_size: Largest size of one weight file, such as `"5GB"`.

    Returns:
        The report of the fine-tuned model.

    Raises:
        UnsupportedModelError: If the model still carries adapters, or is wrapped.
        ReportError: If the parent has no report, or the model was not made from it; or if nothing is known of how it
            was healed.
        OutputFolderError: If the folder holds a model already, or cannot be written.
        VerificationError: If the saved folder does not give the model's logits; then nothing is written.

    Example:
        ```python
        model = trainer.model.merge_and_unload()
        healing = healing_record(trainer, "LoRA of rank 16, merged", "my text")
        save_healed(model, "smollm2-sleb-20-healed", parent="smollm2-sleb-20", healing=healing)
        ```
    """
    check_model(model)
    parent = parent or _own_place(model)
    healings = healings_of(model) if healing is None else (healing,)
    source = {} if revision is None else {"revision": revision}
    before = _checked_report(model, str(parent), source)
    dtype = dtype or _precision_of(str(parent), source) or model.dtype
    trusted = {"trust_remote_code": True} if model._auto_class is not None else {}  # its code is loaded already
    processing_class = tokenizer or load_processing_class(str(parent), **source, **trusted)
    origin = Origin(str(parent), source, tokenizer_state(processing_class) if tokenizer is None else None)
    directory = Path(save_directory)

    def fill(folder: Path) -> PruningReport:
        saved = model if model.dtype == dtype else _in_precision(model, dtype, folder)
        save_model(folder, saved, processing_class, origin, max_shard_size)
        size = saved.get_memory_footprint(return_buffers=False)
        report = replace(
            before,
            weight_bytes_after=size,
            # Speed depends on shape and precision only, so the old numbers hold where both are unchanged.
            speeds=before.speeds if size == before.weight_bytes_after else (),
            healing=(*before.healing, *healings),
            evaluations=healed_evaluations(before.evaluations, evaluations),
            pruned_evaluations=before.pruned_evaluations if before.healing else before.evaluations,
        )
        return write_sleb_files(folder, report, report.recipe, directory.name, parent=str(parent))

    switch_cache_on(remove_autocast(model))
    report = write_folder(directory, fill, overwrite)
    set_model_name(model, str(directory))
    _HEALINGS.pop(model, None)  # the folder knows of them now
    return report


def note_healing(model: PreTrainedModel, healing: HealingRecord) -> None:
    """Remember how a model in memory was healed, until it is saved."""
    _HEALINGS[model] = (*_HEALINGS.get(model, ()), healing)


# By model; an attribute of the module would be copied with it, and be there when another one is trained.
_HEALINGS: WeakKeyDictionary[PreTrainedModel, tuple[HealingRecord, ...]] = WeakKeyDictionary()


def healings_of(model: PreTrainedModel) -> tuple[HealingRecord, ...]:
    """Return how a model in memory was healed since it was saved last; raise ReportError if nothing is known."""
    if model not in _HEALINGS:
        raise ReportError(
            "Nothing is known of how this model was healed; pass healing=healing_record(trainer, ...), or heal it "
            "with heal()."
        )
    return _HEALINGS[model]


def _own_place(model: PreTrainedModel) -> str:
    if not model.name_or_path:
        raise ReportError(
            "The model was pruned in memory and has no folder yet, so its report is nowhere to be found; save it with "
            "SLEBPruner.save_pretrained before it is healed, or name its folder (parent)."
        )
    return str(model.name_or_path)


def _precision_of(parent: str, source: dict[str, str]) -> torch.dtype | None:
    name = PreTrainedConfig.get_config_dict(parent, **source)[0].get("dtype")
    return getattr(torch, name) if isinstance(name, str) else None


def _in_precision(model: PreTrainedModel, dtype: torch.dtype, folder: Path) -> PreTrainedModel:
    # Not `model.to(dtype)`: it also rounds buffers, such as rotary frequencies, which must stay in float32.
    with TemporaryDirectory(dir=folder) as temporary:
        model.save_pretrained(temporary)
        return auto_class_of(model).from_pretrained(
            temporary,
            dtype=dtype,
            device_map={"": model.device},
            attn_implementation=attn_implementation_of(model.config),
            trust_remote_code=model._auto_class is not None,
        )


def parent_report(parent: str, source: dict[str, str]) -> PruningReport:
    """Return the report beside a pruned model; raise ReportError if there is none."""
    report = load_report(parent, **source)
    if report is None:
        raise ReportError(
            f"There is no report beside {parent!r}, so it was not pruned by optimum_sleb; name the pruned model that "
            "was fine-tuned."
        )
    return report


def _checked_report(model: PreTrainedModel, parent: str, source: dict[str, str]) -> PruningReport:
    """Return the parent's report; raise ReportError if the model was not made from this parent."""
    report = parent_report(parent, source)
    check_report_matches_config(report, provenance_of(model, len(find_decoder_stack(model))), parent)
    architecture, parameters = type(model).__name__, model.num_parameters()
    if (architecture, parameters) != (report.architecture, report.parameters_after):
        raise ReportError(
            f"The report beside {parent!r} is of a {report.architecture} with {report.parameters_after:,} parameters, "
            f"but this is a {architecture} with {parameters:,}; name the pruned model that was fine-tuned."
        )
    return report
