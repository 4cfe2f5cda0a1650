"""Saving a pruned model that was fine-tuned, with all that is known of it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from ..auto import auto_class_of
from ..blocks.stack import find_decoder_stack
from ..blocks.surgery import attention_of
from ..checks import check_model
from ..errors import ReportError
from ..loading import load_processing_class, load_report
from ..provenance import check_report, provenance_of, rename
from ..records import EvaluationRecord, HealingRecord
from ..report import PruningReport
from ..trainer import switch_cache_on, without_autocast
from .evaluations import healed_evaluations
from .folder import save_model, write_folder
from .records import write_records


def healing_record(trainer: Any, method: str, dataset: str) -> HealingRecord:
    """How a Trainer healed its model.

    Args:
        trainer: A `transformers.Trainer`, or TRL's `SFTTrainer`, after its training. It counts tokens where its
            arguments have `include_num_input_tokens_seen="all"`.
        method: What was trained, such as `"full fine-tuning"`.
        dataset: Name of the data.

    Returns:
        The record, with steps, seconds and tokens.

    Raises:
        ReportError: If nothing was trained yet.

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
    parent: str | Path,
    healing: HealingRecord,
    evaluations: Sequence[EvaluationRecord] = (),
    tokenizer: PreTrainedTokenizerBase | ProcessorMixin | None = None,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
    max_shard_size: str = "50GB",
) -> PruningReport:
    """Write a pruned model that was fine-tuned as an ordinary folder, with the report and the card of its parent.

    Both are carried on: what was removed and why, how the model was healed, and what was measured since, beside the
    pruned model's numbers. The config says again that the model generates with a cache, which every Trainer turns
    off. Like `SLEBPruner.save_pretrained`, it writes the folder whole or not at all, and reads it back before.

    Args:
        model: The fine-tuned model, adapters merged. It is left as it is, but for its cache, its name, and mixed
            precision that a Trainer put around it.
        save_directory: The folder.
        parent: The pruned model that it was made from: its folder, or its name on the Hub.
        healing: How it was fine-tuned; see `healing_record`.
        evaluations: What was measured on it. Where the pruned model was measured by the same protocol, the card shows
            both.
        tokenizer: Its tokenizer or processor; `None` takes the parent's.
        dtype: Precision to save it in; `None` takes the parent's, whatever it was trained in.
        overwrite: Replace a model that is in the folder already.
        max_shard_size: Largest size of a file of weights, such as `"5GB"`.

    Returns:
        The report.

    Raises:
        UnsupportedModelError: If the model still carries adapters, or is wrapped.
        ReportError: If the parent has no report, or the model was not made from it.
        OutputFolderError: If the folder holds a model already, or cannot be written.
        VerificationError: If what was written does not give the model's logits; then nothing is written.

    Example:
        ```python
        model = trainer.model.merge_and_unload()
        healing = healing_record(trainer, "LoRA of rank 16, merged", "my text")
        save_healed(model, "smollm2-sleb-20-healed", parent="smollm2-sleb-20", healing=healing)
        ```
    """
    check_model(model)
    before = _report_of(model, str(parent))
    dtype = dtype or _precision_of(str(parent)) or model.dtype
    processing_class = tokenizer or load_processing_class(str(parent))
    directory = Path(save_directory)
    report = before

    def fill(folder: Path) -> None:
        nonlocal report
        saved = model if model.dtype == dtype else _in_precision(model, dtype, folder)
        save_model(folder, saved, processing_class, max_shard_size)
        size = saved.get_memory_footprint(return_buffers=False)
        report = replace(
            before,
            weight_bytes_after=size,
            # A model of the same shape and precision is as fast.
            speeds=before.speeds if size == before.weight_bytes_after else (),
            healing=(*before.healing, healing),
            evaluations=healed_evaluations(before.evaluations, evaluations),
        )
        report = write_records(folder, report, report.recipe, directory.name)

    switch_cache_on(without_autocast(model))
    write_folder(directory, fill, overwrite)
    rename(model, str(directory))
    return report


def _precision_of(parent: str) -> torch.dtype | None:
    name = PreTrainedConfig.get_config_dict(parent)[0].get("dtype")
    return getattr(torch, name) if isinstance(name, str) else None


def _in_precision(model: PreTrainedModel, dtype: torch.dtype, folder: Path) -> PreTrainedModel:
    """The model as transformers loads it in another precision.

    `model.to(dtype)` would round buffers as well, such as the frequencies of rotary embeddings, which stay in float32.
    """
    with TemporaryDirectory(dir=folder) as temporary:
        model.save_pretrained(temporary)
        return auto_class_of(model).from_pretrained(
            temporary,
            dtype=dtype,
            device_map={"": model.device},
            attn_implementation=attention_of(model.config),
            trust_remote_code=model._auto_class is not None,
        )


def _report_of(model: PreTrainedModel, parent: str) -> PruningReport:
    """The parent's report, if this model was made from it."""
    report = load_report(parent)
    if report is None:
        raise ReportError(
            f"There is no report beside {parent!r}, so it was not pruned by optimum_sleb; name the pruned model that "
            "was fine-tuned."
        )
    check_report(report, provenance_of(model, len(find_decoder_stack(model))), parent)
    architecture, parameters = type(model).__name__, model.num_parameters()
    if (architecture, parameters) != (report.architecture, report.parameters_after):
        raise ReportError(
            f"The report beside {parent!r} is of a {report.architecture} with {report.parameters_after:,} parameters, "
            f"but this is a {architecture} with {parameters:,}; name the pruned model that was fine-tuned."
        )
    return report
