"""Choice of the auto class of transformers that loads a model."""

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
    """Return the auto class that loads the checkpoint of a config, or `None` if no class of `_MAPPINGS` does.

    >>> from transformers import LlamaConfig
    >>> auto_class_for(LlamaConfig()).__name__
    'AutoModelForCausalLM'
    """
    if "AutoModelForCausalLM" in getattr(config, "auto_map", {}):
        return AutoModelForCausalLM
    known = [(auto_class, mapping[type(config)]) for auto_class, mapping in _MAPPINGS if type(config) in mapping]
    # A checkpoint saved with a vision tower is loaded with it; AutoModelForCausalLM would load the text model alone.
    saved_as = [auto_class for auto_class, model in known if model.__name__ in (config.architectures or ())]
    return next(iter([*saved_as, *(auto_class for auto_class, _ in known)]), None)


def auto_class_of(model: PreTrainedModel) -> Any:
    """Return the auto class that loads the class of a model, or that class itself if no auto class knows it."""
    if model._auto_class is not None:  # a class that came with the checkpoint's own code
        return AutoModelForCausalLM
    for auto_class, mapping in _MAPPINGS:
        if type(model.config) in mapping and mapping[type(model.config)] is type(model):
            return auto_class
    return type(model)


def takes_images(architecture: str) -> bool:
    """Tell whether `AutoModelForImageTextToText` loads the model class of this name.

    >>> takes_images("LlavaForConditionalGeneration"), takes_images("LlamaForCausalLM")
    (True, False)
    """
    return architecture in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values()
