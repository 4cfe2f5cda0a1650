"""Where a model keeps its decoder blocks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import UnsupportedModelError
from .forward import logits_of, measuring, vocab_size_of
from .loader import BlockLoader
from .shortening import num_blocks_of
from .standins import OutputForm, Place, StandIn, arguments_of, split_call

PROBE_LENGTH = 16


@dataclass(frozen=True)
class DecoderStack:
    """The decoder blocks of a model.

    Attributes:
        path: Name of the module list inside the model, such as `"model.layers"`.
        blocks: The module list itself; its length is the number of blocks.
        forms: What the forward of each block returns, by index. Blocks that plain text does not run (cross-attention
            to an image) are missing.
        loader: Brings blocks to the device that computes, where they do not lie there.
    """

    path: str
    blocks: nn.ModuleList
    forms: dict[int, OutputForm]
    loader: BlockLoader | None = None

    def __len__(self) -> int:
        return len(self.blocks)

    @contextmanager
    def without(self, removed: set[int]) -> Iterator[None]:
        """Let the model compute as if some blocks were not there.

        Each of them is stood in for by an identity *at the same index*, for many models choose masks and rotary
        embeddings by a block's position. The blocks come back when the context ends, also after an error.

        Args:
            removed: Indices of the blocks to bypass.

        Example:
            ```python
            with stack.without({3, 4}):
                logits = model(ids).logits  # the dense model, blocks 3 and 4 skipped
            ```
        """
        originals = {index: self.blocks[index] for index in removed}
        try:
            for index, block in originals.items():
                if index in self.forms:  # else plain text does not run it anyway
                    self.blocks[index] = StandIn(block, self.forms[index])
            yield
        finally:
            for index, block in originals.items():
                self.blocks[index] = block


def find_decoder_stack(model: PreTrainedModel) -> DecoderStack:
    """Find the decoder blocks of any causal language model of transformers.

    No table of families is needed: it is the outermost `nn.ModuleList` with as many entries as the text config has
    blocks, whose entries are themselves made of modules, and which runs on plain text (a vision tower does not).

    Args:
        model: The model. It runs once on a few tokens, to see what its blocks return.

    Returns:
        The stack.

    Raises:
        UnsupportedModelError: If there is no such list, or more than one.

    Example:
        ```python
        stack = find_decoder_stack(model)
        print(stack.path, len(stack))  # model.layers 30
        ```
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
    """A fixed short sequence of token ids to try a model on.

    Args:
        model: The model; its vocabulary and device count.

    Returns:
        Token ids of shape (1, 16), the same ones at every call.

    Example:
        ```python
        logits = model(probe_ids(model)).logits
        ```
    """
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocab_size_of(model), (1, PROBE_LENGTH), generator=generator)
    return ids.to(model.device)


def _has_children(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


def _observe_forms(model: PreTrainedModel, lists: dict[str, nn.ModuleList]) -> dict[str, dict[int, OutputForm]]:
    """Run the model once, and see what the blocks of each list are called with and return."""
    calls: dict[tuple[str, int], tuple[dict[Place, Any], object]] = {}

    def remember(place: tuple[str, int], args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
        _, rest, kwargs = split_call(args, kwargs)
        calls[place] = (arguments_of(rest, kwargs), output)

    hooks = [
        block.register_forward_hook(
            lambda _module, args, kwargs, output, place=(path, index): remember(place, args, kwargs, output),
            with_kwargs=True,
        )
        for path, blocks in lists.items()
        for index, block in enumerate(blocks)
    ]
    try:
        with measuring(model):
            logits_of(model, probe_ids(model))
    finally:
        for hook in hooks:
            hook.remove()
    forms: dict[str, dict[int, OutputForm]] = {path: {} for path in lists}
    for (path, index), (_, output) in calls.items():
        next_arguments, _ = calls.get((path, index + 1), ({}, None))
        forms[path][index] = OutputForm.of(output, next_arguments)
    return {path: _carry_through(of_list) for path, of_list in forms.items()}


def _carry_through(forms: dict[int, OutputForm]) -> dict[int, OutputForm]:
    """What one block hands on, all of its kind hand on: nobody is there to receive it from the last one."""
    last = max(forms, default=0)
    before = forms.get(last - 1)
    if before is not None and (before.container, before.length) == (forms[last].container, forms[last].length):
        forms[last] = before
    return forms
