"""Where a model keeps its decoder blocks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import UnsupportedModelError
from .forward import logits_of, measuring, vocab_size_of
from .standins import OutputForm, StandIn

PROBE_LENGTH = 16


@dataclass(frozen=True)
class DecoderStack:
    """The decoder blocks of a model.

    Attributes:
        path: Name of the module list inside the model, such as `"model.layers"`.
        blocks: The module list itself; its length is the number of blocks.
        forms: What each block's forward returns.
    """

    path: str
    blocks: nn.ModuleList
    forms: tuple[OutputForm, ...]

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
                self.blocks[index] = StandIn(block, self.forms[index])
            yield
        finally:
            for index, block in originals.items():
                self.blocks[index] = block


def find_decoder_stack(model: PreTrainedModel) -> DecoderStack:
    """Find the decoder blocks of any causal language model of transformers.

    No table of families is needed: it is the outermost `nn.ModuleList` with as many entries as the text config has
    layers, whose entries are themselves made of modules.

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
    count = model.config.get_text_config(decoder=True).num_hidden_layers
    lists = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and all(_has_children(entry) for entry in module)
    }
    outermost = [path for path in lists if not any(path.startswith(f"{other}.") for other in lists)]
    name = type(model).__name__
    if not outermost:
        raise UnsupportedModelError(
            f"{name} has no list of {count} decoder blocks (the number its config gives), so there is nothing that "
            "SLEB could remove; only models with one stack of decoder blocks are supported."
        )
    if len(outermost) > 1:
        raise UnsupportedModelError(
            f"{name} spreads its {count} layers over {len(outermost)} lists ({', '.join(outermost)}), and a block "
            "cannot be taken out of several at once; only models with one stack of decoder blocks are supported."
        )
    blocks = lists[outermost[0]]
    return DecoderStack(outermost[0], blocks, _observe_forms(model, blocks))


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


def _observe_forms(model: PreTrainedModel, blocks: nn.ModuleList) -> tuple[OutputForm, ...]:
    forms: dict[int, OutputForm] = {}

    def remember(index: int, output: object) -> None:
        forms[index] = OutputForm.of(output)

    hooks = [
        block.register_forward_hook(lambda _module, _args, output, index=index: remember(index, output))
        for index, block in enumerate(blocks)
    ]
    try:
        with measuring(model):
            logits_of(model, probe_ids(model))
    finally:
        for hook in hooks:
            hook.remove()
    silent = [index for index in range(len(blocks)) if index not in forms]
    if silent:
        raise UnsupportedModelError(
            f"{type(model).__name__} does not run its blocks {silent} on plain text, so their removal cannot be "
            "measured with calibration text."
        )
    return tuple(forms[index] for index in range(len(blocks)))
