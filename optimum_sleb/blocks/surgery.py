"""Taking decoder blocks out of a model and out of its config."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..errors import UnsupportedModelError
from .stack import DecoderStack


def shorten_config(config: PreTrainedConfig, kept: Sequence[int]) -> None:
    """Make a config speak of the kept blocks only, in place.

    The number of layers is set, and every list with one entry per layer (`layer_types`, say) is sliced.

    Args:
        config: The config of the whole model; its text config is edited.
        kept: Indices of the kept blocks, ascending.

    Raises:
        UnsupportedModelError: If the config cannot be edited so.

    Example:
        >>> from transformers import Qwen3Config
        >>> config = Qwen3Config(num_hidden_layers=4, layer_types=["full_attention"] * 4)
        >>> shorten_config(config, [0, 1, 3])
        >>> config.num_hidden_layers, len(config.layer_types)
        (3, 3)
    """
    text_config = config.get_text_config(decoder=True)
    if text_config is not config and text_config not in vars(config).values():
        raise UnsupportedModelError(
            f"{type(config).__name__} describes an encoder and a decoder, and its decoder's layers cannot be counted "
            "apart; only decoder-only models are supported."
        )
    count = text_config.num_hidden_layers
    for name, value in list(vars(text_config).items()):
        # A list of end-of-text tokens can have as many entries as there are layers, but is not about them.
        if isinstance(value, list | tuple) and len(value) == count and not name.endswith("token_id"):
            setattr(text_config, name, [value[index] for index in kept])
    text_config.num_hidden_layers = len(kept)


def cut_out(model: PreTrainedModel, stack: DecoderStack, kept: Sequence[int], template: PreTrainedModel) -> None:
    """Take blocks out of a model and its config, in place.

    Args:
        model: The model.
        stack: Its decoder blocks; the list gets shorter.
        kept: Indices of the blocks that stay, ascending.
        template: A fresh model of the shortened config (its weights may be missing), from which the remaining blocks
            learn their new indices.

    Example:
        ```python
        cut_out(model, stack, kept, template=build_shortened(model, kept))
        ```
    """
    shorten_config(model.config, kept)
    for index in sorted(set(range(len(stack))) - set(kept), reverse=True):
        del stack.blocks[index]
    for name, _, fresh in list(differing_attributes(stack.blocks, template.get_submodule(stack.path))):
        # Whole numbers that differ are the blocks' own indices, by which they find their slot in the cache.
        if type(fresh) is int:
            owner, _, attribute = name.rpartition(".")
            setattr(stack.blocks.get_submodule(owner), attribute, fresh)


def differing_attributes(blocks: nn.Module, fresh: nn.Module) -> Iterator[tuple[str, Any, Any]]:
    """Plain attributes in which two lists of blocks of the same kind differ.

    Args:
        blocks: A module list of blocks.
        fresh: Another one with the same modules.

    Yields:
        The attribute's dotted name inside the list, its value in `blocks`, its value in `fresh`.

    Example:
        ```python
        for name, mine, theirs in differing_attributes(model.model.layers, shorter.model.layers):
            print(name, mine, theirs)  # 5.self_attn.layer_idx 6 5
        ```
    """
    for path, module in blocks.named_modules():
        twin = fresh.get_submodule(path)
        for attribute, value in vars(module).items():
            if type(value) not in (bool, int, float, str) or attribute.startswith("_") or attribute in _RUN_STATE:
                continue
            other = vars(twin).get(attribute)
            if value != other:
                yield f"{path}.{attribute}", value, other


# Flags that say how a module is being run, not what it computes.
_RUN_STATE = {"training", "gradient_checkpointing"}
