from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    BertConfig,
    Llama4Config,
    LlamaConfig,
    LlavaConfig,
    ViTConfig,
)

from optimum_sleb.models.auto import auto_class_for, auto_class_of

from ..architectures.tiny import tiny_model


def test_for_a_checkpoint() -> None:
    assert auto_class_for(LlamaConfig()) is AutoModelForCausalLM
    assert auto_class_for(BertConfig(architectures=["BertForMaskedLM"])) is AutoModelForCausalLM
    assert auto_class_for(LlavaConfig()) is AutoModelForImageTextToText
    assert auto_class_for(ViTConfig()) is None


def test_a_composite_whose_language_model_stands_alone_too() -> None:
    # Llama 4 is a causal language model to one auto class, and a model with a vision tower to the other.
    assert auto_class_for(Llama4Config()) is AutoModelForCausalLM
    saved = Llama4Config(architectures=["Llama4ForConditionalGeneration"])
    assert auto_class_for(saved) is AutoModelForImageTextToText


def test_a_checkpoint_with_its_own_code() -> None:
    config = LlamaConfig()
    config.auto_map = {"AutoModelForCausalLM": "modeling_homemade.HomemadeForCausalLM"}
    assert auto_class_for(config) is AutoModelForCausalLM


def test_of_a_model() -> None:
    assert auto_class_of(tiny_model("llama")) is AutoModelForCausalLM
    assert auto_class_of(tiny_model("llava", with_images=True)) is AutoModelForImageTextToText
    # The text model of Emu3 has a class, but no auto class takes its config.
    text_model = tiny_model("emu3")
    assert auto_class_of(text_model) is type(text_model)
