"""`SLEBPruner`: the search for the blocks that go, and their removal."""

import time
from collections.abc import Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from .base import BasePruner, all_or_nothing
from .blocks import verify
from .blocks.forward import vocab_size_of
from .blocks.stack import find_decoder_stack
from .blocks.surgery import remove_blocks
from .blocks.verify import check_removal
from .calibration.loaded import LoadedWindows
from .calibration.sources import load_calibration
from .config import SLEBConfig, candidates_of, recipe_of
from .evaluation.goal import goal_of, speeds_of_target
from .models.fingerprint import sample_weights
from .models.goals import Goal
from .models.placement import Offload, Placement, choose_placement, stack_on_device
from .models.positions import check_positions, fit_windows
from .models.provenance import check_same_model, mark_as_pruned
from .report.build import report_before_removal, report_of_later_removal, with_model_sizes
from .report.records import StepRecord
from .report.report import PruningReport
from .runtime.ranks import Ranks
from .search.callbacks import SearchCallback
from .search.compensating import put_weights, repeat_compensation
from .search.criterion import CriterionFunction, choose_criterion
from .search.following import Followers, check_callbacks
from .search.progress import Progress, check_progress
from .search.reporting import reporting, services_of
from .search.result import SearchResult
from .search.run import open_search
from .version import __version__


class SLEBPruner(BasePruner):
    """Pruner that makes a causal language model shallower by SLEB (Song et al., ICML 2024, arXiv 2402.09025).

    Blocks are named by their number in the dense model, also when a model is pruned again.

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

    @all_or_nothing
    def prune(
        self,
        /,
        config: SLEBConfig | None = None,
        *,
        calibration: Any = None,
        criterion: CriterionFunction | str | None = None,
        callbacks: Sequence[SearchCallback] = (),
        report_to: str | Sequence[str] | None = None,
        progress_dir: str | Path | None = None,
        resume: bool = False,
        device: str | torch.device | None = None,
        offload: Offload = "auto",
        ranks: Ranks | None = None,
        **kwargs: Any,
    ) -> PreTrainedModel:
        """Search for the blocks whose removal raises the loss least, one after the other, and remove them.

        Args:
            config: The recipe; `None` makes one of the keywords. Shares and numbers of blocks refer to the model as
                it is now.
            calibration: Calibration data instead of the recipe's data set: a `Dataset` or `IterableDataset`, a list or
                a generator function of strings, chats, rows (columns by TRL's conventions) or token ids, a
                `DataLoader`, or a name or path as in `SLEBConfig.dataset`; docs/calibration.md has them all.
            criterion: What the search lowers instead of the recipe's loss: a function `f(logits, batch)` from logits
                (batch, length, vocabulary), in the model's precision, and a batch of windows (`batch.ids` and
                `batch.targets`, (batch, length); -100 where nothing is predicted) to a floating-point loss of each
                window, (batch,), or its name as `"org.module:function"`. Each window must be judged on its own.
            callbacks: Callbacks that follow the search and may stop it after a step.
            report_to: Where the search is written to, as the Trainer takes it: `"tensorboard"`, `"trackio"`,
                `"wandb"`, several of these, `"all"` that are installed, or `"none"`.
            progress_dir: Folder for the progress, best the one that the model will be saved to: a journal of all
                measurements, and a report of the steps so far. Saving the model there removes the journal.
            resume: Continue from the journal of an interrupted run in that folder; the result is the same. Fitted maps
                are not in the journal and are computed again.
            device: The device for the search, such as `"cuda"`; `None` is the device of the model.
            offload: For a model in host memory and a search on another device: `"no"` moves the model there, `"cpu"`
                keeps it there and brings its blocks to the device one at a time, `"auto"` moves it if it fits.
            ranks: Processes that search together. Each holds this model and a share of the calibration windows, and
                each must call this method; the first one writes the progress. `None` is this process alone.
            **kwargs: Fields of the recipe, as `generate` takes those of a `GenerationConfig`. With a `config` they
                replace its fields; another way to say how much goes replaces that of the `config`.

        Returns:
            The model, edited in place: an ordinary `PreTrainedModel` with fewer layers.

        Raises:
            ConfigError: If fewer blocks may go than the recipe asks for, if its target cannot be met, if a keyword is
                unknown, if the device cannot be used, or if a service of `report_to` is not installed.
            CriterionError: If the criterion cannot be imported, fails, or returns what is no loss of each window.
            CalibrationError: If the calibration data cannot be used.
            UnsupportedModelError: If blocks of this architecture cannot be removed with a result that is certain to be
                right; raised before the search starts.
            NonFiniteLossError: If the loss is NaN or infinite before the first removal or without any of the
                candidates; also if only the float16 in which the model is stored makes it so.
            OutOfMemoryError: If not even one token window at a time fits.
            JournalError: If there is a journal but `resume` is not set, if `resume` is set but there is none, or if
                the journal is of another run.
            VerificationError: If the shortened model does not compute what the search measured.
            RankError: If another one of the processes failed.

        Example:
            ```python
            pruned = pruner.prune(num_blocks_to_remove=6, dataset="my_text.jsonl")
            ```
        """
        started = time.perf_counter()
        config = recipe_of(config, kwargs, signature(self.prune).parameters)
        ranks = ranks or Ranks.alone()
        with ranks.fail_together():
            # What can be judged without data is judged before any are read.
            config.num_blocks_to_remove_of(len(self._stack), self.blocks)
            lowered, services = choose_criterion(config.criterion, criterion), services_of(report_to)
            check_callbacks(callbacks)
            folder, resume = (progress_dir, resume) if ranks.is_first else (None, False)
            check_progress(folder, resume=resume)
            placement = choose_placement(self.model, config, device, offload, ranks)
            loaded = self._load_windows(calibration, config, ranks)
            config = replace(config, criterion=lowered.name, dataset=loaded.source)  # what is really used, and saved
            details: dict[str, Any] = {"recipe": config, "calibration": loaded.record()}
            details["weights_before"] = sample_weights(self.model)
            with (
                stack_on_device(self.model, self._stack, placement) as stack,
                reporting(services, progress_dir) as reporters,
            ):
                may_go = candidates_of(config, self.blocks)
                candidates, barred = ranks.from_first(lambda: verify.removable_blocks(self.model, stack, may_go))
                details["barred_blocks"] = {self.blocks[block]: reason for block, reason in barred.items()}
                goal = goal_of(self.model, stack, config, candidates, ranks)
                followers = Followers(config, ranks, [*callbacks, *reporters], self.blocks)
                searched = (self.model, stack, loaded.windows, candidates, config)
                with (
                    Progress(
                        folder, self.model, self.blocks, loaded.windows, config, lowered.source, resume=resume
                    ) as progress,
                    open_search(
                        *searched, lowered, followers, ranks=ranks, goal=goal, journal=progress.journal
                    ) as search,
                ):
                    for result in search.removals():
                        progress.save(self._report_of_search(result, placement, goal, started, details))
                details["speeds"] = ranks.from_first(
                    lambda: speeds_of_target(self.model, stack, config, search.result.removed)
                )
            report = self._report_of_search(search.result, placement, goal, started, details)
            self._report = self._take_out(report, search.result.weights)
            self._recipe = config
        return self.model

    @all_or_nothing
    def remove(self, blocks: Sequence[int]) -> PreTrainedModel:
        """Remove known blocks, without a search.

        Args:
            blocks: Their numbers in the dense model.

        Returns:
            The model, edited in place.

        Raises:
            ConfigError: If a block is named twice, does not exist or is already removed, or if no block would remain.
            UnsupportedModelError: If this architecture's blocks cannot be removed.
            VerificationError: If the shortened model does not compute what the dense model computes when it skips
                these blocks.

        Example:
            ```python
            pruned = pruner.remove([14, 23, 11])
            ```
        """
        started = time.perf_counter()
        check_removal(self.model, self._stack, self.blocks, blocks)
        steps, weights = tuple(map(StepRecord, blocks)), sample_weights(self.model)
        self._report = self._take_out(self._report_of(steps, started, weights_before=weights))
        return self.model

    @all_or_nothing
    def apply(
        self,
        report: PruningReport,
        num_removed: int | None = None,
        *,
        calibration: Any = None,
        criterion: CriterionFunction | str | None = None,
    ) -> PreTrainedModel:
        """Remove the blocks that an earlier search found, or only so many of them.

        A search knows every depth up to its last, so one search serves them all: the first blocks of a greedy search,
        or the best set of so many. The report of the search, up to that depth, becomes the report of this model.

        Args:
            report: The report of a search that began with this model.
            num_removed: Number of blocks to remove; `None` removes all blocks of the report.
            calibration: The calibration data of the search, where the recipe's data set does not name them. They are
                used only if the search compensated its cuts: the maps are fitted again for the shallower model.
            criterion: The criterion of the search, where it had one of its own and compensated its cuts. A name in a
                report is never imported.

        Returns:
            The model, edited in place.

        Raises:
            ReportError: If the report is of another model, has fewer removals, is of several runs with
                compensation, or needs a criterion that was not given.
            CalibrationError: If the calibration data cannot be used, or are not those of the search.
            UnsupportedModelError: If this architecture's blocks cannot be removed.
            VerificationError: If the shortened model does not compute what the dense model computes when it skips
                these blocks.

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
        weights, cut = repeat_compensation(
            self.model, self._stack, self.blocks, cut, calibration, self.tokenizer, criterion
        )
        taken = self._take_out(self._report_of(tuple(map(StepRecord, cut.removed_blocks)), started), weights)
        self._recipe, self._report = cut.recipe, report_of_later_removal(cut, taken)
        return self.model

    def _load_windows(self, calibration: Any, config: SLEBConfig, ranks: Ranks) -> LoadedWindows:
        """Return the token windows to search on, which the model can take."""
        calibration = self._calibration if calibration is None else calibration
        fitted = fit_windows(config, self.model)
        loaded = ranks.from_first(lambda: load_calibration(calibration, self.tokenizer, fitted))
        loaded.windows.check_vocabulary(vocab_size_of(self.model))
        check_positions(loaded.windows.lengths, self.model)
        return loaded

    def _take_out(self, report: PruningReport, weights: dict[str, torch.Tensor] | None = None) -> PruningReport:
        """Remove the blocks of a report's steps; `weights` are the folded weights of a compensated model."""
        removed = tuple(step.block for step in report.steps)
        put_weights(self.model, weights or {})
        remove_blocks(self.model, self._stack, [self.blocks.index(block) for block in removed])
        self._stack = find_decoder_stack(self.model)
        self._provenance = replace(
            self._provenance, removed_blocks=self._provenance.removed_blocks + removed, version=__version__
        )
        mark_as_pruned(self.model, self._provenance)
        self._folder = None
        return with_model_sizes(report, self.model)

    def _report_of_search(
        self, result: SearchResult, placement: Placement, goal: Goal | None, started: float, details: dict[str, Any]
    ) -> PruningReport:
        """The report of what a search has found so far."""
        return self._report_of(
            result.step_records(self.blocks),
            started,
            search=replace(result.record, offload=placement.reason),
            depths=result.depth_records(self.blocks),
            compensation=result.compensation_record(self.blocks),
            target=None if goal is None else goal.record(result.removed),
            **details,
        )

    def _report_of(self, steps: tuple[StepRecord, ...], started: float, **details: Any) -> PruningReport:
        """Return the report of steps that are decided but whose blocks are still in the model."""
        return report_before_removal(
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
