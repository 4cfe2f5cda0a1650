"""Making a config speak of fewer blocks."""

import copy
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedConfig

from .rules import PERIODS, RULES, Cut, fit_period

# Lists under these names can have as many entries as there are blocks, but are not about them.
_NOT_PER_BLOCK = ("rope_parameters", "rope_scaling", "token_id", "id2label", "label2id")


def text_config_of(config: PreTrainedConfig) -> PreTrainedConfig:
    """The part of a config that describes the decoder blocks.

    Args:
        config: The config of a model, possibly a composite one.

    Returns:
        The config itself, or one of its sub-configs; never a copy.

    Example:
        >>> from transformers import Gemma3Config
        >>> config = Gemma3Config()
        >>> text_config_of(config) is config.text_config
        True
    """
    text_config = config.get_text_config(decoder=True)
    # For configs of encoder-decoder families `get_text_config` makes a copy, in which edits would be lost.
    return text_config if any(value is text_config for value in vars(config).values()) else config


def count_field_of(text_config: PreTrainedConfig) -> str:
    """The field that holds the number of decoder blocks.

    Args:
        text_config: What `text_config_of` gave.

    Returns:
        Name of the field. Most configs answer to `num_hidden_layers`, whatever they call it themselves.

    Example:
        >>> from transformers import BartConfig, GPT2Config
        >>> count_field_of(GPT2Config()), count_field_of(BartConfig())
        ('num_hidden_layers', 'decoder_layers')
    """
    # In encoder-decoder families `num_hidden_layers` is the encoder's; LongCat-Flash counts two of them per block.
    for field in ("decoder_layers", "num_decoder_layers"):
        if field in vars(text_config):
            return field
    return "num_layers" if text_config.model_type == "longcat_flash" else "num_hidden_layers"


def num_blocks_of(config: PreTrainedConfig) -> int:
    """The number of decoder blocks that a config calls for.

    Args:
        config: The config of a model.

    Returns:
        The number.

    Example:
        >>> from transformers import GPT2Config
        >>> num_blocks_of(GPT2Config(n_layer=3))
        3
    """
    text_config = text_config_of(config)
    return getattr(text_config, count_field_of(text_config))


def shorten_config(config: PreTrainedConfig, kept: Sequence[int]) -> None:
    """Make a config speak of the kept blocks only, in place.

    Lists with one entry per block are sliced, wherever they stand in the text config; fields that speak of blocks by
    index, threshold or period follow the rules of `blocks.rules`.

    Args:
        config: The config of the whole model; its text config is edited.
        kept: Indices of the kept blocks, ascending.

    Example:
        >>> from transformers import Qwen3Config
        >>> config = Qwen3Config(num_hidden_layers=4, layer_types=["full_attention"] * 4, max_window_layers=2)
        >>> shorten_config(config, [0, 2, 3])
        >>> config.num_hidden_layers, len(config.layer_types), config.max_window_layers
        (3, 3, 1)
    """
    text_config = text_config_of(config)
    cut = Cut(copy.deepcopy(text_config), num_blocks_of(config), kept)
    for name, value in list(vars(text_config).items()):
        sliced = _slice(name, value, cut)
        if sliced is not value:
            setattr(text_config, name, sliced)
    old = vars(cut.config)
    for name, (_, new_value) in RULES.items():
        if old.get(name) is not None:
            setattr(text_config, name, new_value(cut, old[name]))
    for period, offset in PERIODS.items():
        if old.get(period) is not None and (fit := fit_period(cut, old[period], old[offset])):
            setattr(text_config, period, fit[0])
            setattr(text_config, offset, fit[1])
    setattr(text_config, count_field_of(text_config), len(kept))
    if getattr(cut.config, "is_heterogeneous", False):
        overrides = {int(index): values for index, values in cut.config.to_dict()["per_layer_config"].items()}
        text_config.per_layer_config = {new: overrides[old] for new, old in enumerate(kept) if old in overrides}


def config_changes(config: PreTrainedConfig, kept: Sequence[int]) -> dict[str, tuple[Any, Any]]:
    """What `shorten_config` would change, without changing anything.

    Args:
        config: The config of the whole model.
        kept: Indices of the kept blocks, ascending.

    Returns:
        For each field of the text config that changes, its value before and after.

    Example:
        >>> from transformers import LlamaConfig
        >>> config_changes(LlamaConfig(num_hidden_layers=4), [0, 1, 3])
        {'num_hidden_layers': (4, 3)}
    """
    shortened = copy.deepcopy(config)
    shorten_config(shortened, kept)
    before, after = text_config_of(config).to_dict(), text_config_of(shortened).to_dict()
    return {
        name: (before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }


def only_number_changes(config: PreTrainedConfig, kept: Sequence[int]) -> bool:
    """Whether a cut changes nothing in a config but the number of blocks. All such cuts are alike.

    Args:
        config: The config of the whole model.
        kept: Indices of the kept blocks, ascending; not all of them.

    Returns:
        Whether it does.

    Example:
        >>> from transformers import LlamaConfig, Qwen3Config
        >>> only_number_changes(LlamaConfig(num_hidden_layers=4), [0, 1, 3])
        True
        >>> only_number_changes(Qwen3Config(num_hidden_layers=4), [0, 1, 3])  # it has a list of kinds of attention
        False
    """
    return len(config_changes(config, kept)) == 1


def _slice(name: str, value: Any, cut: Cut) -> Any:
    """The value with every list per block sliced, or the value itself; sub-configs change in place."""
    if name.startswith("_") or name.endswith(_NOT_PER_BLOCK):
        return value
    if isinstance(value, list | tuple) and len(value) == cut.count:
        return [value[index] for index in cut.kept]
    if isinstance(value, dict):
        sliced = {key: _slice(str(key), item, cut) for key, item in value.items()}
        return sliced if any(sliced[key] is not value[key] for key in value) else value
    if isinstance(value, PreTrainedConfig):
        for key, item in list(vars(value).items()):
            sliced = _slice(key, item, cut)
            if sliced is not item:
                setattr(value, key, sliced)
    return value
