"""Models with a vision tower: the text stack gets shorter, everything else stays."""

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    LlavaForConditionalGeneration,
    PreTrainedModel,
)

from optimum_sleb import SLEBConfig, SLEBPruner, UnsupportedModelError
from optimum_sleb.models.loading import load_model

from ..architectures.tiny import tiny_model
from ..families import random_ids

RECIPE = SLEBConfig(num_blocks_to_remove=2)


@pytest.fixture
def llava() -> PreTrainedModel:
    return tiny_model("llava", with_images=True)


def logits_with_image(model: PreTrainedModel) -> torch.Tensor:
    vision = model.config.vision_config
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, vision.image_size, vision.image_size, generator=generator)
    with torch.no_grad():
        features = model.model.get_image_features(image).pooler_output
        num_image_tokens = features[0].shape[0]
        ids = torch.tensor([[5] + [model.config.image_token_id] * num_image_tokens + [7, 8, 9]])
        return model(input_ids=ids, pixel_values=image).logits


@pytest.mark.long
def test_images_still_work(llava: PreTrainedModel, tmp_path: Path) -> None:
    llava.config.image_token_id = 4
    others = {name: weight.clone() for name, weight in llava.named_parameters() if "language_model" not in name}
    dense = logits_with_image(llava)
    pruner = SLEBPruner(llava)
    with pruner._stack.skipping({1, 2}):
        expected = logits_with_image(llava)
    assert not torch.allclose(dense, expected)
    pruner.remove([1, 2])
    torch.testing.assert_close(logits_with_image(llava), expected)
    assert all(llava.get_parameter(name).equal(weight) for name, weight in others.items())

    pruner.save_pretrained(tmp_path / "pruned")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "pruned")
    assert isinstance(again, LlavaForConditionalGeneration)
    assert again.config.text_config.num_hidden_layers == 6
    torch.testing.assert_close(logits_with_image(again), expected)


def test_pruned_on_text(llava: PreTrainedModel) -> None:
    pruner = SLEBPruner(llava)
    pruner.prune(RECIPE, calibration=random_ids(2, 20))
    assert pruner.report.architecture == "LlavaForConditionalGeneration"
    assert len(pruner.report.removed_blocks) == 2


@pytest.mark.long
def test_a_checkpoint_with_a_vision_tower_is_loaded_whole(llava: PreTrainedModel, tmp_path: Path) -> None:
    llava.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="No tokenizer"):
        pruner = SLEBPruner.from_pretrained(tmp_path)
    assert isinstance(pruner.model, LlavaForConditionalGeneration)


def test_gemma3_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    tiny_model("gemma3").save_pretrained(tmp_path / "composite")
    tiny_model("gemma3_text").save_pretrained(tmp_path / "text")
    assert type(load_model(str(tmp_path / "composite"))).__name__ == "Gemma3ForConditionalGeneration"
    assert type(load_model(str(tmp_path / "text"))).__name__ == "Gemma3ForCausalLM"


@pytest.mark.long
def test_blocks_that_take_image_features_stay() -> None:
    pruner = SLEBPruner(tiny_model("qwen3_vl", with_images=True))
    pruner.prune(RECIPE, calibration=random_ids(2, 20))
    assert set(pruner.report.barred_blocks) == {1, 2}
    assert min(pruner.report.removed_blocks) >= 3
    with pytest.raises(UnsupportedModelError, match="image features enter behind the first 3 blocks"):
        SLEBPruner(tiny_model("qwen3_vl", with_images=True)).remove([2])


@pytest.mark.long
def test_blocks_that_only_see_images_stay() -> None:
    pruner = SLEBPruner(tiny_model("mllama", with_images=True))
    assert pruner.check().barred == {
        block: f"plain text does not run block {block}, so its removal cannot be measured" for block in (2, 5)
    }


def test_the_language_model_alone(llava: PreTrainedModel, tmp_path: Path) -> None:
    llava.model.language_model.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match="lacks 1 weights of LlamaForCausalLM"):
        load_model(str(tmp_path))
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.num_hidden_layers == 8
