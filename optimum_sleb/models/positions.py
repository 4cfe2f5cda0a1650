"""The positions of a model, which limit the length of a token window."""

import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from transformers import PreTrainedModel

from ..blocks.shortening import text_config_of
from ..config import PUBLISHED_WINDOW_LENGTH, SLEBConfig
from ..errors import CalibrationError, ConfigError, SLEBError
from .loading import load_without_weights

# Tables with one row per position; a sinusoidal `weights` is none, because it grows with the text.
_TABLE = re.compile(
    r"(^|\.)((wpe|embed_positions|positions?_embed(dings)?)\.weight|embed_positions|pos_encoding|position_embeddings)$"
)
_NOT_OF_TEXT = re.compile(r"vision|image|visual|audio|encoder\.(?!embed_positions)")


def most_positions(model: PreTrainedModel) -> int | None:
    """Return the number of tokens for which a model has learned or tabulated positions; `None`: any number.
    The model may lie on the meta device.

    >>> from transformers import AutoModelForCausalLM, OPTConfig
    >>> config = OPTConfig(vocab_size=9, hidden_size=8, word_embed_proj_dim=8, num_attention_heads=2, ffn_dim=8)
    >>> most_positions(AutoModelForCausalLM.from_config(config))
    2048
    """
    config = text_config_of(model.config)
    if config.model_type == "mpt":
        return int(config.max_seq_len)  # its biases are made for so many
    most = min(_tables(model), default=None)
    # ProphetNet looks one position ahead.
    return most - 1 if most is not None and config.model_type == "prophetnet" else most


def fit_window_length(length: int, model: PreTrainedModel) -> int:
    """Return the length of windows for a model: the published one shrinks to fewer positions, any other is refused."""
    most, name = most_positions(model), type(model).__name__
    if most is not None and length > most:
        if length != PUBLISHED_WINDOW_LENGTH:
            raise ConfigError(
                f"window_length={length} is more than the {most} positions of {name}; choose at most {most}."
            )
        warnings.warn(
            f"{name} has {most} positions, so windows of a text have {most} tokens instead of the published {length}.",
            stacklevel=2,
        )
        return most
    return length


def fit_windows(config: SLEBConfig, model: PreTrainedModel) -> SLEBConfig:
    """Return the recipe with the length of windows that the model has positions for."""
    return replace(config, window_length=fit_window_length(config.window_length, model))


def check_positions(lengths: list[int], model: PreTrainedModel) -> None:
    """Raise `CalibrationError` if a window, such as a row of token ids, is longer than the model's positions.
    Warn if it is longer than those for which a model with rotary positions was made."""
    most, config = most_positions(model), text_config_of(model.config)
    made_for = getattr(config, "max_position_embeddings", None)
    if getattr(config, "rope_parameters", None) and isinstance(made_for, int) and 0 < made_for < max(lengths):
        warnings.warn(
            f"Windows of {max(lengths)} tokens are longer than the {made_for} positions that {type(model).__name__} "
            "was made for (max_position_embeddings), so its losses can be unusually high; choose shorter windows.",
            stacklevel=2,
        )
    if most is not None and max(lengths) > most:
        number = next(number for number, length in enumerate(lengths) if length > most)
        raise CalibrationError(
            f"Window {number} of the data has {lengths[number]} tokens, more than the {most} positions of "
            f"{type(model).__name__}; give rows of at most {most} tokens."
        )


def check_window_length(name_or_path: str, length: int, **kwargs: Any) -> None:
    """Refuse a length of windows that the model has no positions for, before its weights are loaded.
    `kwargs` are those of `loading.load_model`."""
    if length != PUBLISHED_WINDOW_LENGTH:
        check_config(name_or_path, kwargs, lambda model: fit_window_length(length, model))


def check_config(name_or_path: str, kwargs: dict[str, Any], check: Callable[[PreTrainedModel], object]) -> None:
    """Check the model that a config makes, without weights; `kwargs` are those of `loading.load_model`."""
    if "gguf_file" in kwargs:
        return
    try:
        model = load_without_weights(name_or_path, **kwargs)
    except (SLEBError, ImportError):
        return  # what is wrong with the model is said when it is loaded
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warnings follow when the model is there
        check(model)


def _tables(model: PreTrainedModel) -> list[int]:
    """Return the positions of each table of the part of the model that reads text."""
    rows = []
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if _TABLE.search(name) and not _NOT_OF_TEXT.search(name) and tensor.dim() == 2:
            module = model.get_submodule(name.removesuffix(".weight") if name.endswith(".weight") else "")
            padding = getattr(module, "padding_idx", None)
            # OPT and BART leave rows at the start unused, and RoBERTa counts from its padding token.
            rows.append(len(tensor) - getattr(module, "offset", 0 if padding is None else padding + 1))
    return rows
