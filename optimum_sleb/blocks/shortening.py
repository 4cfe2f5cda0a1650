"""Edits of a config for a model with fewer blocks."""

import copy
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedConfig

from .rules import PERIODS, RULES, Removal, fit_period

# Lists with these names are not sliced, even if they have as many entries as there are blocks.
_NOT_PER_BLOCK = ("rope_parameters", "rope_scaling", "token_id", "id2label", "label2id")


def text_config_of(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the config, or its sub-config, that describes the decoder blocks; never a copy."""
    text_config = config.get_text_config(decoder=True)
    # For encoder-decoder families `get_text_config` returns a copy, in which edits would be lost.
    return text_config if any(value is text_config for value in vars(config).values()) else config


def count_field_of(text_config: PreTrainedConfig) -> str:
    """Return the name of the config field that holds the number of decoder blocks.

    >>> from transformers import BartConfig, GPT2Config
    >>> count_field_of(GPT2Config()), count_field_of(BartConfig())
    ('num_hidden_layers', 'decoder_layers')
    """
    # Most configs map `num_hidden_layers` to their own name. In encoder-decoder families it is the encoder's, and in
    # LongCat-Flash it is twice the number of blocks.
    for field in ("decoder_layers", "num_decoder_layers"):
        if field in vars(text_config):
            return field
    return "num_layers" if text_config.model_type == "longcat_flash" else "num_hidden_layers"


def num_blocks_of(config: PreTrainedConfig) -> int:
    """Return the number of decoder blocks that a config calls for."""
    text_config = text_config_of(config)
    return getattr(text_config, count_field_of(text_config))


def shorten_config(config: PreTrainedConfig, kept: Sequence[int]) -> None:
    """Edit a config in place so that it describes the kept blocks only, by slices of lists and by `blocks.rules`.

    >>> from transformers import Qwen3Config
    >>> config = Qwen3Config(num_hidden_layers=4, layer_types=["full_attention"] * 4, max_window_layers=2)
    >>> shorten_config(config, [0, 2, 3])
    >>> config.num_hidden_layers, len(config.layer_types), config.max_window_layers
    (3, 3, 1)
    """
    text_config = text_config_of(config)
    removal = Removal(copy.deepcopy(text_config), num_blocks_of(config), kept)
    for name, value in list(vars(text_config).items()):
        sliced = _slice(name, value, removal)
        if sliced is not value:
            setattr(text_config, name, sliced)
    old = vars(removal.config)
    for name, (_, new_value) in RULES.items():
        if old.get(name) is not None:
            setattr(text_config, name, new_value(removal, old[name]))
    for period, offset in PERIODS.items():
        if old.get(period) is not None and (fit := fit_period(removal, old[period], old[offset])):
            setattr(text_config, period, fit[0])
            setattr(text_config, offset, fit[1])
    setattr(text_config, count_field_of(text_config), len(kept))
    if getattr(removal.config, "is_heterogeneous", False):
        overrides = {int(index): values for index, values in removal.config.to_dict()["per_layer_config"].items()}
        text_config.per_layer_config = {new: overrides[old] for new, old in enumerate(kept) if old in overrides}


def config_changes(config: PreTrainedConfig, kept: Sequence[int]) -> dict[str, tuple[Any, Any]]:
    """Return the fields of the text config that `shorten_config` would change, with their values before and after.

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


def only_num_blocks_changes(config: PreTrainedConfig, kept: Sequence[int]) -> bool:
    """Tell whether a removal changes only the number of blocks in the config; all such removals are alike."""
    return len(config_changes(config, kept)) == 1


def _slice(name: str, value: Any, removal: Removal) -> Any:
    """Return the value with every list per block sliced, or the value itself; sub-configs change in place."""
    if name.startswith("_") or name.endswith(_NOT_PER_BLOCK):
        return value
    if isinstance(value, list | tuple) and len(value) == removal.num_blocks:
        return [value[index] for index in removal.kept]
    if isinstance(value, dict):
        sliced = {key: _slice(str(key), item, removal) for key, item in value.items()}
        return sliced if any(sliced[key] is not value[key] for key in value) else value
    if isinstance(value, PreTrainedConfig):
        for key, item in list(vars(value).items()):
            sliced = _slice(key, item, removal)
            if sliced is not item:
                setattr(value, key, sliced)
    return value
