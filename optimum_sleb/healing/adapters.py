"""Adapters on all linear layers of the blocks, by PEFT: put on for a training, and merged after it."""

from typing import Any

from transformers import PreTrainedModel

from ..models.quantised import quantisation_of


def with_adapter(model: PreTrainedModel, rank: int) -> Any:
    """Return the model with an adapter of a rank, the only thing that is trained; the model stays inside, as it is."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if quantisation_of(model) is not None:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)  # the Trainer does that
    lora = LoraConfig(r=rank, lora_alpha=rank, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, lora)


def merged(model: Any) -> PreTrainedModel:
    """Return the model with its adapter added to the weights, all of which can be trained again."""
    whole: PreTrainedModel = model.merge_and_unload()
    whole.disable_input_require_grads()
    for parameter in whole.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    return whole
