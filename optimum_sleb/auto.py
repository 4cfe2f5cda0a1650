"""Which of transformers' auto classes loads a model."""

from typing import Any

from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

_MAPPINGS = (
    (AutoModelForCausalLM, MODEL_FOR_CAUSAL_LM_MAPPING),
    (AutoModelForImageTextToText, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING),
)


def auto_class_for(config: PreTrainedConfig) -> Any:
    """The auto class for the checkpoint of a config.

    A checkpoint that was saved with a vision tower (`architectures` names a `...ForConditionalGeneration`) is loaded
    with it, although `AutoModelForCausalLM` would give the language model alone.

    Args:
        config: The config that stands beside the weights.

    Returns:
        `AutoModelForCausalLM` or `AutoModelForImageTextToText`; `None` where neither knows the config.

    Example:
        >>> from transformers import LlamaConfig
        >>> auto_class_for(LlamaConfig()).__name__
        'AutoModelForCausalLM'
    """
    if "AutoModelForCausalLM" in getattr(config, "auto_map", {}):
        return AutoModelForCausalLM
    known = [(auto_class, mapping[type(config)]) for auto_class, mapping in _MAPPINGS if type(config) in mapping]
    saved_as = [auto_class for auto_class, model in known if model.__name__ in (config.architectures or ())]
    return next(iter([*saved_as, *(auto_class for auto_class, _ in known)]), None)


def auto_class_of(model: PreTrainedModel) -> Any:
    """The auto class that loads a model's class from its config.

    Args:
        model: The model.

    Returns:
        `AutoModelForCausalLM` or `AutoModelForImageTextToText`; the model's own class where none of them knows it.

    Example:
        ```python
        auto_class_of(model).from_pretrained(folder)
        ```
    """
    if model._auto_class is not None:  # a class that came with the checkpoint's own code
        return AutoModelForCausalLM
    for auto_class, mapping in _MAPPINGS:
        if type(model.config) in mapping and mapping[type(model.config)] is type(model):
            return auto_class
    return type(model)


def takes_images(architecture: str) -> bool:
    """Whether a model of this class is loaded by `AutoModelForImageTextToText`.

    Args:
        architecture: Name of the class.

    Returns:
        Whether it takes images beside text.

    Example:
        >>> takes_images("LlavaForConditionalGeneration"), takes_images("LlamaForCausalLM")
        (True, False)
    """
    return architecture in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values()
