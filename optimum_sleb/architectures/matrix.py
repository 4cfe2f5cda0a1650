"""The matrix: every architecture of the installed transformers, pruned as a tiny random model and compared.

Nothing here is taken on trust: blocks are removed through `SLEBPruner`, as a user does, and the result is compared, in
memory and after saving and reloading, with the dense model whose blocks are skipped.
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

from ..blocks.forward import logits_of, losses_of, measuring
from ..blocks.probes import cache_trouble, same_logits
from ..blocks.stack import find_decoder_stack
from ..calibration.windows import TokenWindows
from ..config import SLEBConfig
from ..errors import UnsupportedModelError
from ..pruner import SLEBPruner
from ..search.choice import choose_method
from .sizes import NUM_BLOCKS, VOCAB_SIZE
from .tiny import tiny_model

# The first block, one in the middle, the last; two neighbours; a scattered third.
REMOVALS: tuple[tuple[int, ...], ...] = ((0,), (3,), (NUM_BLOCKS - 1,), (3, 4), (1, 4, 6))

Status = Literal["exact", "some blocks", "refused", "not tried", "wrong"]


@dataclass(frozen=True, order=True)
class Architecture:
    """One of the models that transformers can build.

    Attributes:
        model_type: Its name, as in `AutoConfig`.
        with_images: Whether the model of `AutoModelForImageTextToText` is meant, with its vision tower, not that of
            `AutoModelForCausalLM`.
    """

    model_type: str
    with_images: bool = False

    def __str__(self) -> str:
        return f"{self.model_type} with images" if self.with_images else self.model_type


@dataclass(frozen=True)
class Verdict:
    """What was found out about an architecture.

    Attributes:
        architecture: Which one.
        status: `"exact"`: every removal that was tried is; `"some blocks"`: so are those that are not refused;
            `"refused"`: no block can be removed; `"not tried"`: no tiny model of it could be built; `"wrong"`: a
            removal was not refused and is not exact.
        removable: Blocks that can be removed on their own, of `NUM_BLOCKS`.
        reason: Why not exact.
    """

    architecture: Architecture
    status: Status
    removable: tuple[int, ...] = ()
    reason: str = ""


def architectures() -> list[Architecture]:
    """Every decoder-only language model of the installed transformers, alone or with a vision tower.

    Returns:
        The architectures, sorted; those with images come last.

    Example:
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
    """Prune a tiny random model of an architecture in several ways, and compare each with skipping the blocks.

    Args:
        architecture: The architecture.

    Returns:
        The verdict.

    Example:
        ```python
        try_architecture(Architecture("llama")).status  # "exact"
        ```
    """
    try:
        dense = tiny_model(architecture.model_type, with_images=architecture.with_images)
        with measuring(dense):
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
        except Exception as error:  # anything but a refusal is a fault
            trouble = _one_line(error)
        if trouble is not None:
            return replace(verdict, status="wrong", reason=f"without blocks {list(removed)}: {trouble}")
    return verdict


def try_architectures(chosen: Sequence[Architecture], jobs: int) -> Iterator[Verdict]:
    """Try several architectures, in processes of their own.

    Args:
        chosen: The architectures.
        jobs: Number of processes.

    Yields:
        The verdicts, in the same order.

    Example:
        ```python
        for verdict in try_architectures(architectures(), jobs=2):
            print(verdict)
        ```
    """
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
    """Remove blocks as a user does, and compare on windows that the gates have not seen."""
    batch, *_ = windows.batches(len(windows))
    ids = batch.ids
    with measuring(model), find_decoder_stack(model).without(set(removed)):
        expected = logits_of(model, ids)
    dense_trouble = cache_trouble(model)
    pruner = SLEBPruner(model)
    pruner.remove(removed)
    with tempfile.TemporaryDirectory() as folder:
        pruner.save_pretrained(folder)
        reloaded = type(model).from_pretrained(folder, dtype=torch.float32)
    for name, shortened in (("in memory", model), ("reloaded", reloaded)):
        with measuring(shortened):
            logits, own_losses = logits_of(shortened, ids), losses_of(shortened, ids, batch.targets)
        if not same_logits(logits, expected):
            return f"the model {name} does not compute the dense one with these blocks skipped"
        if len(removed) == 1 and not torch.allclose(own_losses, losses[removed[0]], rtol=1e-4):
            return f"the search's loss is not that of the model {name}"
        trouble = cache_trouble(shortened)
        if trouble is not None and dense_trouble is None:
            return f"{name}: {trouble}"
    return None


def _measured_losses(model: PreTrainedModel, candidates: Sequence[int], windows: TokenWindows) -> Tensor:
    """What a search measures: the loss of every window without every candidate."""
    stack = find_decoder_stack(model)
    config = SLEBConfig(num_blocks_to_remove=1, batch_size=len(windows))
    method = choose_method(model, stack, windows, candidates, config, on_progress=lambda pairs: None)
    return method.measure(range(len(stack)), candidates)


def _windows() -> TokenWindows:
    """Two windows, longer than the tiny models' sliding window."""
    generator = torch.Generator().manual_seed(0)
    return TokenWindows.from_rows(torch.randint(3, VOCAB_SIZE, (2, 24), generator=generator))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
