from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from optimum_sleb import VerificationError
from optimum_sleb.hub.saved_model import verify_saved_model

from ..families import tiny_model


class TestVerifySavedModel:
    def test_passes_what_loads_and_agrees(self, llama: PreTrainedModel, tmp_path: Path) -> None:
        llama.save_pretrained(tmp_path)
        verify_saved_model(tmp_path, llama)

    def test_notices_missing_weights(self, llama: PreTrainedModel, tmp_path: Path) -> None:
        del llama.model.layers[5]  # but the config still says six
        llama.save_pretrained(tmp_path)
        with pytest.raises(VerificationError, match="does not load: 9 weights are missing"):
            verify_saved_model(tmp_path, llama)

    def test_notices_other_numbers(self, llama: PreTrainedModel, tmp_path: Path) -> None:
        llama.save_pretrained(tmp_path)
        with torch.no_grad():
            llama.model.layers[3].mlp.up_proj.weight.add_(0.1)
        with pytest.raises(VerificationError, match="gives other logits than the model in memory"):
            verify_saved_model(tmp_path, llama)
        assert AutoModelForCausalLM.from_pretrained(tmp_path) is not None


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_second_copy_need_not_fit_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model().to("cuda")
    model.save_pretrained(tmp_path)
    monkeypatch.setattr("optimum_sleb.runtime.memory.memory_left", lambda device: 10**6)
    verify_saved_model(tmp_path, model)
    model.model.layers[3].mlp.up_proj.weight.data += 1
    with pytest.raises(VerificationError, match="other logits"):
        verify_saved_model(tmp_path, model)
