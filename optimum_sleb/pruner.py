"""`SLEBPruner`: the story of a pruned model, from load to save."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from .blocks import gates
from .blocks.forward import vocab_size_of
from .blocks.gates import take_out
from .blocks.probes import check_causal_lm, check_saving_changes_nothing
from .blocks.stack import find_decoder_stack
from .calibration.rows import Batches
from .calibration.sources import load_calibration
from .checks import check_model
from .config import SLEBConfig
from .hub.saving import Saving
from .loading import load_model, load_processing_class, load_report
from .placement import Offload, place, placed
from .progress import Progress
from .provenance import check_report, check_same_model, loading_of, mark_as_pruned, model_name, provenance_of
from .ranks import Ranks
from .records import StepRecord
from .removability import Removability
from .removal import check_removal, compensation_of, report_of_cut, report_of_steps, with_sizes_of
from .report import PruningReport
from .search.compensating import compensated_for_a_cut
from .search.result import SearchResult
from .search.run import run_search
from .trainer import calibration_of, model_of, origin_of, switch_cache_on
from .version import __version__
from .weights import weights_record


class SLEBPruner(Saving):
    """Makes a causal language model shallower by SLEB (Song et al., ICML 2024, arXiv 2402.09025).

    Blocks are named by their number in the original, dense model, also when a model is pruned again.

    Args:
        model: A decoder-only model in memory. `prune` and `remove` edit it in place.
        tokenizer: Its tokenizer, or the processor that holds it; needed to calibrate on text, saved with the model.

    Raises:
        UnsupportedModelError: If the model is a wrapper, quantised, or not a causal language model.

    Example:
        ```python
        pruner = SLEBPruner.from_pretrained("HuggingFaceTB/SmolLM2-135M", dtype="auto", device_map="cuda")
        pruned = pruner.prune(SLEBConfig(sparsity=0.2, dataset="wikitext2"))  # an ordinary PreTrainedModel
        pruner.save_pretrained("smollm2-sleb-20")
        ```
    """

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
        self._calibration: Batches | None = None  # what a Trainer brought along
        self._folder = None

    @classmethod
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
            tokenizer: The tokenizer or processor, where it is not the one beside the model.
            **kwargs: Passed on to `AutoModelForCausalLM.from_pretrained`: `dtype`, `device_map`, `revision`,
                `gguf_file`, ... A GGUF file is dequantised, so that the result can be saved.

        Returns:
            The pruner.

        Raises:
            ModelNotFoundError: If there is no model there.
            UnsupportedModelError: If it cannot be pruned.
            ReportError: If the report beside it is malformed or belongs to another model.

        Example:
            ```python
            pruner = SLEBPruner.from_pretrained("HuggingFaceTB/SmolLM2-135M", dtype="auto", device_map="cuda")
            ```
        """
        name = str(model_name_or_path)
        pruner = cls(load_model(name, **kwargs), tokenizer or load_processing_class(name, **kwargs))
        pruner._loading = loading_of(kwargs)
        earlier = load_report(name, **kwargs)
        if earlier is not None:
            check_report(earlier, pruner._provenance, name)
            pruner._report = earlier
            pruner._base_model = earlier.base_model
        return pruner

    @classmethod
    def from_trainer(cls, trainer: Any, *, dataset: Any = None) -> Self:
        """Prune what a Trainer holds, on its own data.

        The data pass the Trainer's collator, in order: padding never counts, packed sequences are taken apart, and
        `SLEBConfig(loss="labels")` measures on the labels, as the training does. The model is edited in place, so
        train on with a new Trainer; its cache, which every Trainer switches off, is switched on again.

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
        if (origin := origin_of(trainer)) is not None:
            pruner._base_model, pruner._provenance = origin, replace(pruner._provenance, base_model=None)
        switch_cache_on(pruner.model)
        return pruner

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks that the model has, by their number in the dense model."""
        return self._provenance.blocks

    def check(self) -> Removability:
        """Find out which blocks this architecture lets go, each on its own; in seconds, without calibration data.

        Returns:
            What can be removed, what cannot, and why.

        Raises:
            UnsupportedModelError: If no block can be removed.

        Example:
            ```python
            print(pruner.check().summary())
            ```
        """
        return Removability.of(self.model, self._stack, self.blocks)

    def prune(
        self,
        config: SLEBConfig,
        *,
        calibration: Any = None,
        progress_dir: str | Path | None = None,
        resume: bool = False,
        device: str | torch.device | None = None,
        offload: Offload = "auto",
        ranks: Ranks | None = None,
    ) -> PreTrainedModel:
        """Search for the blocks whose absence hurts least, one after the other, and take them out.

        Args:
            config: The recipe. Shares and numbers of blocks count in the model as it is now.
            calibration: Calibration data instead of the recipe's data set: a list of strings, a `datasets.Dataset`, a
                `DataLoader`, token ids, or a file; see `calibration.sources.load_calibration`.
            progress_dir: Folder in which progress is kept, best the one that the model will be saved to: a journal of
                what was measured, and a report of the steps so far. Saving the model there removes the journal.
            resume: Go on from the journal that an interrupted run left there; the result is the same. Fits are redone.
            device: The device that searches, such as `"cuda"`; `None` is the one on which the model lies.
            offload: For a model in host memory that another device searches: `"no"` moves it there, `"cpu"` leaves it
                where it is and brings its blocks there one at a time, `"auto"` moves it if it fits.
            ranks: Processes that search together, each with this model and a share of the calibration windows, and
                all of which call this; the first keeps the progress. `None` is this process alone.

        Returns:
            The model, edited in place: an ordinary `PreTrainedModel` with fewer layers.

        Raises:
            ConfigError: If the recipe leaves fewer blocks than its barriers protect, or the device cannot be used.
            CalibrationError: If the calibration data cannot be used.
            UnsupportedModelError: If this architecture's blocks cannot be removed so that the result is certainly
                right; found before the search starts.
            NonFiniteLossError: If the loss is NaN or infinite from the start, or whichever block is removed; also
                where it is so only in float16, if that is what the model is kept in.
            OutOfMemoryError: If not even one window at a time fits.
            JournalError: If there is a journal and `resume` is not set, or none and it is, or it is of another run.
            VerificationError: If the shortened model is not what was measured.
            RankError: If another of the processes failed.

        Example:
            ```python
            pruned = pruner.prune(SLEBConfig(num_blocks_to_remove=6, dataset="my_text.jsonl"))
            ```
        """
        started = time.perf_counter()
        ranks = ranks or Ranks(together=False)
        with ranks.all_or_none():
            config.num_blocks_to_remove_of(len(self._stack))  # refuses what cannot be, before any data are loaded
            calibration = self._calibration if calibration is None else calibration
            loaded = ranks.from_first(lambda: load_calibration(calibration, self.tokenizer, config))
            loaded.windows.check_vocabulary(vocab_size_of(self.model))
            config = replace(config, dataset=loaded.source)  # so that the saved recipe tells what was really used
            placement = place(self.model, config, device, offload, ranks)
            wanted = range(config.early_barrier, len(self._stack) - config.latter_barrier)
            with placed(self.model, self._stack, placement) as stack:
                candidates, barred = ranks.from_first(lambda: gates.removable_blocks(self.model, stack, wanted))
            details = {
                "recipe": config,
                "calibration": loaded.record(),
                "barred_blocks": {self.blocks[block]: reason for block, reason in barred.items()},
                "weights_before": weights_record(self.model),
            }

            def report_of(result: SearchResult) -> PruningReport:
                compensation = result.compensation_record(self.blocks)
                steps = result.step_records(self.blocks)
                record = replace(result.record, offload=placement.reason)
                return self._report_of(steps, started, search=record, compensation=compensation, **details)

            folder, resume = (progress_dir, resume) if ranks.is_first else (None, False)
            with Progress(
                folder, self.model, self.blocks, loaded.windows, config, resume=resume, device=placement.compute_on
            ) as progress:
                result = run_search(
                    self.model,
                    self._stack,
                    loaded.windows,
                    candidates,
                    config,
                    journal=progress.journal,
                    on_step=lambda result: progress.save(report_of(result)),
                    ranks=ranks,
                    compute_on=placement.compute_on,
                )
            self._report = self._take_out(report_of(result), result.weights)
            self._recipe = config
        return self.model

    def remove(self, blocks: Sequence[int]) -> PreTrainedModel:
        """Take out known blocks, without a search.

        Args:
            blocks: Their numbers in the dense model.

        Returns:
            The model, edited in place.

        Raises:
            ConfigError: If a block is named twice, does not exist or is gone already, or none would be left.
            UnsupportedModelError: If this architecture's blocks cannot be removed.
            VerificationError: If the shortened model does not compute the dense model with these blocks skipped.

        Example:
            ```python
            pruned = pruner.remove([14, 23, 11])
            ```
        """
        started = time.perf_counter()
        check_removal(self.model, self._stack, self.blocks, blocks)
        steps, weights = tuple(map(StepRecord, blocks)), weights_record(self.model)
        self._report = self._take_out(self._report_of(steps, started, weights_before=weights))
        return self.model

    def apply(
        self, report: PruningReport, num_removed: int | None = None, *, calibration: Any = None
    ) -> PreTrainedModel:
        """Take out the blocks that an earlier search found, or the first so many of them.

        The order of removal is nested, so one search serves every depth. The report of the search becomes the report
        of this model, up to the last removal.

        Args:
            report: The report of a search on this model's dense parent.
            num_removed: How many blocks to remove; `None` removes all that the report tells of.
            calibration: The calibration data of the search, where the recipe's data set does not name them. They are
                used only where the search compensated its cuts, which is done again for the shallower model.

        Returns:
            The model, edited in place.

        Raises:
            ReportError: If the report is of another model, does not go so far, or is of several runs that compensated.
            CalibrationError: If the calibration data cannot be used, or are not those of the search.
            UnsupportedModelError: If this architecture's blocks cannot be removed.
            VerificationError: If the shortened model does not compute the dense model with these blocks skipped.

        Example:
            ```python
            pruner = SLEBPruner.from_pretrained(report.base_model)
            shallower = pruner.apply(report, num_removed=4)
            ```
        """
        started = time.perf_counter()
        cut = report if num_removed is None else report.cut(num_removed)
        check_same_model(self.model, self.blocks, report.first_run)
        check_removal(self.model, self._stack, self.blocks, cut.removed_blocks)
        calibration = self._calibration if calibration is None else calibration
        weights, cut = compensation_of(self.model, self._stack, self.blocks, cut, calibration, self.tokenizer)
        taken = self._take_out(self._report_of(tuple(map(StepRecord, cut.removed_blocks)), started), weights)
        self._recipe, self._report = cut.recipe, report_of_cut(cut, taken)
        return self.model

    def _take_out(self, report: PruningReport, weights: dict[str, torch.Tensor] | None = None) -> PruningReport:
        """Take out the blocks of a report's steps; where it is compensated, with folded weights."""
        removed = tuple(step.block for step in report.steps)
        with compensated_for_a_cut(self.model, self._stack, weights or {}):
            take_out(self.model, self._stack, [self.blocks.index(block) for block in removed])
        self._stack = find_decoder_stack(self.model)
        self._provenance = replace(
            self._provenance, removed_blocks=self._provenance.removed_blocks + removed, version=__version__
        )
        mark_as_pruned(self.model, self._provenance)
        self._folder = None
        return with_sizes_of(report, self.model)

    def _report_of(self, steps: tuple[StepRecord, ...], started: float, **details: Any) -> PruningReport:
        """The report of steps that are decided, but not yet taken."""
        return report_of_steps(
            self.model,
            self._stack,
            self.blocks,
            steps,
            base_model=self._base_model,
            original_num_blocks=self._provenance.original_num_blocks,
            previous=self._report,
            loading=self._loading,
            seconds=time.perf_counter() - started,
            **details,
        )
