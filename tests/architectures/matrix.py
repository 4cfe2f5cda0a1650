"""Trial of every architecture of the installed transformers, as tiny random models.
Blocks are removed through `SLEBPruner`, as a user does, and the shortened model, in memory and reloaded, is compared
with the dense model whose blocks are skipped.
"""

import copy
import multiprocessing
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)
from transformers.utils import logging

from optimum_sleb.blocks.forward import evaluating, logits_of, losses_of, same_logits
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.blocks.verify import cache_failure
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.config import SLEBConfig
from optimum_sleb.errors import UnsupportedModelError
from optimum_sleb.pruner import SLEBPruner
from optimum_sleb.runtime.ranks import Ranks
from optimum_sleb.search.method import choose_method

from .sizes import NUM_BLOCKS, VOCAB_SIZE
from .tiny import tiny_model

# The first block, one in the middle, the last; two neighbours; a scattered third.
REMOVALS: tuple[tuple[int, ...], ...] = ((0,), (3,), (NUM_BLOCKS - 1,), (3, 4), (1, 4, 6))

# "exact": every removal tried is exact; "some blocks": every removal that is not refused is; "refused": no block can
# be removed; "not tried": no tiny model could be built; "wrong": a removal was not refused, but is not exact.
Status = Literal["exact", "some blocks", "refused", "not tried", "wrong"]


@dataclass(frozen=True, order=True)
class Architecture:
    """A model class of transformers, by its `model_type` in `AutoConfig`."""

    model_type: str
    with_images: bool = False  # the class of AutoModelForImageTextToText with its vision tower, not the text model

    def __str__(self) -> str:
        return f"{self.model_type} with images" if self.with_images else self.model_type


@dataclass(frozen=True)
class Verdict:
    """Result of the trial of an architecture."""

    architecture: Architecture
    status: Status
    removable: tuple[int, ...] = ()  # blocks that can be removed on their own, of `NUM_BLOCKS`
    reason: str = ""  # why the status is not "exact"


def architectures() -> list[Architecture]:
    """Return every decoder-only language model of the installed transformers, sorted, those with images last.

    >>> Architecture("llama") in architectures()
    True
    """
    text = [Architecture(name) for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES]
    images = [
        Architecture(name, with_images=True)
        for name, model_class in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.items()
        if MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(name) != model_class
    ]
    return sorted(text) + sorted(images)


def try_architecture(architecture: Architecture) -> Verdict:
    """Prune a tiny random model in several ways, and compare each result with skipping the blocks."""
    try:
        dense = tiny_model(architecture.model_type, with_images=architecture.with_images)
        with evaluating(dense):
            dense(_windows().windows[0][None])
    except ImportError:
        return Verdict(architecture, "not tried", reason="it needs optional packages of transformers")
    except Exception as error:  # anything: some refuse small sizes, some do not run on text alone
        return Verdict(architecture, "not tried", reason=f"no tiny model runs: {_one_line(error)}")
    try:
        check = SLEBPruner(dense).check()
    except UnsupportedModelError as error:
        return Verdict(architecture, "refused", reason=_one_line(error))
    verdict = Verdict(architecture, "exact", check.removable)
    if check.barred:
        block, reason = next(iter(check.barred.items()))
        verdict = replace(verdict, status="some blocks", reason=f"not block {block}: {reason}")
    windows = _windows()
    losses = dict(zip(check.removable, _measured_losses(dense, check.removable, windows), strict=True))
    for removed in REMOVALS:
        if not set(removed) <= set(check.removable):
            continue
        try:
            trouble = _trouble(copy.deepcopy(dense), removed, windows, losses)
        except UnsupportedModelError as error:
            if len(removed) > 1:  # blocks that can go on their own, but not together
                reason = verdict.reason or f"not blocks {list(removed)} together: {_one_line(error)}"
                verdict = replace(verdict, status="some blocks", reason=reason)
                continue
            trouble = _one_line(error)
        except Exception as error:  # any error that is not a refusal is a bug
            trouble = _one_line(error)
        if trouble is not None:
            return replace(verdict, status="wrong", reason=f"without blocks {list(removed)}: {trouble}")
    return verdict


def try_architectures(chosen: Sequence[Architecture], jobs: int) -> Iterator[Verdict]:
    """Try architectures in `jobs` processes, and yield the verdicts in order."""
    # Spawned, not forked: PyTorch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_quietly) as pool:
        yield from pool.map(try_architecture, chosen)


def _start_quietly() -> None:
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _trouble(
    model: PreTrainedModel, removed: Sequence[int], windows: TokenWindows, losses: dict[int, Tensor]
) -> str | None:
    """Remove blocks, and return how the result differs from skipping them, or `None`.
    They are compared on windows that the checks of the pruner itself do not use.
    """
    batch, *_ = windows.batches(len(windows))
    ids = batch.ids
    with evaluating(model), find_decoder_stack(model).skipping(set(removed)):
        expected = logits_of(model, ids)
    dense_trouble = cache_failure(model)
    pruner = SLEBPruner(model)
    pruner.remove(removed)
    with tempfile.TemporaryDirectory() as folder:
        pruner.save_pretrained(folder)
        reloaded = type(model).from_pretrained(folder, dtype=torch.float32)
    for name, shortened in (("in memory", model), ("reloaded", reloaded)):
        with evaluating(shortened):
            logits, own_losses = logits_of(shortened, ids), losses_of(shortened, ids, batch.targets)
        if not same_logits(logits, expected):
            return f"the model {name} does not compute the dense one with these blocks skipped"
        if len(removed) == 1 and not torch.allclose(own_losses, losses[removed[0]], rtol=1e-4):
            return f"the search's loss is not that of the model {name}"
        trouble = cache_failure(shortened)
        if trouble is not None and dense_trouble is None:
            return f"{name}: {trouble}"
    return None


def _measured_losses(model: PreTrainedModel, candidates: Sequence[int], windows: TokenWindows) -> Tensor:
    """Return the search's loss of every window without each candidate, of shape (candidates, windows)."""
    stack = find_decoder_stack(model)
    config = SLEBConfig(num_blocks_to_remove=1, batch_size=len(windows))
    method = choose_method(model, stack, windows, candidates, config, Ranks.alone())
    return method.measure(range(len(stack)), candidates).matrix


def _windows() -> TokenWindows:
    """Return two windows, longer than the sliding window of the tiny models."""
    generator = torch.Generator().manual_seed(0)
    return TokenWindows.from_rows(torch.randint(3, VOCAB_SIZE, (2, 24), generator=generator))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
