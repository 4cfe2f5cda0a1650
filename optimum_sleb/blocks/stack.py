"""The list of decoder blocks inside a model."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import UnsupportedModelError
from ..runtime.undo import undoing
from .forward import evaluating, logits_of, vocab_size_of
from .loader import BlockLoader
from .shortening import num_blocks_of
from .standins import ArgumentKey, OutputForm, StandIn, arguments_by_key, split_call
from .state import removing_hooks

PROBE_LENGTH = 16


@dataclass(frozen=True)
class DecoderStack:
    """The decoder blocks of a model."""

    path: str  # name of the module list inside the model, such as "model.layers"
    blocks: nn.ModuleList
    # What each block returns, by index; blocks that plain text does not run (cross-attention to an image) are missing.
    forms: dict[int, OutputForm]
    loader: BlockLoader | None = None  # loads blocks to the device that computes, where they are in host memory

    def __len__(self) -> int:
        return len(self.blocks)

    @contextmanager
    def skipping(self, removed: set[int]) -> Iterator[None]:
        """Let the model compute as if some blocks were not there; they come back at the end, also after an error."""
        # Stand-ins keep the indices, because many models choose masks and rotary embeddings by a block's position.
        originals = {index: self.blocks[index] for index in removed}

        def restore() -> None:
            for index, block in originals.items():
                self.blocks[index] = block

        with undoing(restore):
            for index, block in originals.items():
                if index in self.forms:  # others are not run by plain text anyway
                    self.blocks[index] = StandIn(block, self.forms[index])
            yield


def find_decoder_stack(model: PreTrainedModel) -> DecoderStack:
    """Return the decoder blocks of any causal language model of transformers, found by running it on a few tokens.

    They are the outermost `nn.ModuleList` with as many entries as the text config has blocks, made of modules, that
    runs on plain text (a vision tower does not). Raise UnsupportedModelError unless there is exactly one.
    """
    count = num_blocks_of(model.config)
    name = type(model).__name__
    lists = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and all(map(_has_children, module))
    }
    outermost = {path: lists[path] for path in lists if not any(path.startswith(f"{other}.") for other in lists)}
    if not outermost:
        raise UnsupportedModelError(
            f"{name} has no list of {count} decoder blocks (the number its config gives), so there is nothing that "
            "SLEB could remove; only models with one stack of decoder blocks are supported."
        )
    forms = _observe_forms(model, outermost)
    running = [path for path in outermost if forms[path]]
    if not running:
        raise UnsupportedModelError(
            f"{name} does not run the blocks of {', '.join(outermost)} on plain text, so their removal cannot be "
            "measured with calibration text."
        )
    if len(running) > 1:
        raise UnsupportedModelError(
            f"{name} spreads its {count} layers over {len(running)} lists ({', '.join(running)}), and a block "
            "cannot be taken out of several at once; only models with one stack of decoder blocks are supported."
        )
    return DecoderStack(running[0], outermost[running[0]], forms[running[0]])


def probe_ids(model: PreTrainedModel) -> Tensor:
    """Return fixed token ids of shape (1, 16) on the model's device, to try a model on."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocab_size_of(model), (1, PROBE_LENGTH), generator=generator)
    return ids.to(model.device)


def _has_children(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


def _observe_forms(model: PreTrainedModel, lists: dict[str, nn.ModuleList]) -> dict[str, dict[int, OutputForm]]:
    """Run the model once and record what the blocks of each list are called with and return."""
    calls: dict[tuple[str, int], tuple[dict[ArgumentKey, Any], object]] = {}  # by list and index of the block

    def record(
        block: tuple[str, int], _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object
    ) -> None:
        _, rest, kwargs = split_call(args, kwargs)
        calls[block] = (arguments_by_key(rest, kwargs), output)

    with removing_hooks() as hooks, evaluating(model):
        for path, blocks in lists.items():
            for index, block in enumerate(blocks):
                hooks.append(block.register_forward_hook(partial(record, (path, index)), with_kwargs=True))
        logits_of(model, probe_ids(model))
    forms: dict[str, dict[int, OutputForm]] = {path: {} for path in lists}
    for (path, index), (_, output) in calls.items():
        next_arguments, _ = calls.get((path, index + 1), ({}, None))
        forms[path][index] = OutputForm.of(output, next_arguments)
    return {path: _complete_last_form(of_list) for path, of_list in forms.items()}


def _complete_last_form(forms: dict[int, OutputForm]) -> dict[int, OutputForm]:
    """Give the last block the form of the one before, because no block after it shows what it hands on."""
    last = max(forms, default=0)
    before = forms.get(last - 1)
    if before is not None and (before.container, before.length) == (forms[last].container, forms[last].length):
        forms[last] = before
    return forms
