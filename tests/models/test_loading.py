"""What stands beside a model, and what is no model to prune; see also test_pruner.py."""

from pathlib import Path

import pytest
from transformers import (
    LlamaConfig,
    LlamaForSequenceClassification,
    ProcessorMixin,
    T5Config,
    T5ForConditionalGeneration,
)

from optimum_sleb import SLEBPruner, UnsupportedModelError
from optimum_sleb.models.loading import load_model, load_processing_class


class PassThroughProcessor(ProcessorMixin):
    """Holds a tokenizer, as the processors of models with images do."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer

    def save_pretrained(self, folder, **_) -> None:
        self.tokenizer.save_pretrained(folder)
        (Path(folder) / "preprocessor_config.json").write_text("{}")


def test_a_processor_gives_its_tokenizer_and_is_saved(model_folder: Path, tokenizer, tmp_path: Path) -> None:
    processor = PassThroughProcessor(tokenizer)
    pruner = SLEBPruner.from_pretrained(model_folder, tokenizer=processor)
    assert pruner.tokenizer is tokenizer
    pruner.remove([2])
    folder = pruner.save_pretrained(tmp_path / "pruned")
    assert (folder / "preprocessor_config.json").is_file()
    assert (folder / "tokenizer.json").is_file()


def test_a_processor_is_loaded_where_there_is_one(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model_folder / "preprocessor_config.json").write_text("{}")
    monkeypatch.setattr(
        "optimum_sleb.models.loading.AutoProcessor.from_pretrained", lambda name, **_: f"processor of {name}"
    )
    assert load_processing_class(str(model_folder)) == f"processor of {model_folder}"


def test_a_processor_that_cannot_be_loaded(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, **_: object) -> None:
        raise ImportError("needs the PIL library")

    (model_folder / "preprocessor_config.json").write_text("{}")
    monkeypatch.setattr("optimum_sleb.models.loading.AutoProcessor.from_pretrained", fail)
    with pytest.warns(UserWarning, match=r"cannot be loaded \(needs the PIL library\), so it will not be saved"):
        loaded = load_processing_class(str(model_folder))
    assert loaded.vocab_size == 64


def test_a_classifier_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    # With tied embeddings the language model could be loaded from it, and nobody would notice.
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match="checkpoint of a LlamaForSequenceClassification"):
        load_model(str(tmp_path))


def test_an_encoder_decoder_model_is_refused(tmp_path: Path) -> None:
    config = T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match="t5 model, which transformers does not offer as a decoder-only"):
        load_model(str(tmp_path))
