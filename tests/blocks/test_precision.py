import pytest
import torch

from optimum_sleb.blocks.precision import computes_in_float32, computing_in_float32

from ..families import random_ids, tiny_model


def test_computes_in_float32_and_gives_every_bit_back() -> None:
    model = tiny_model("gpt2", dtype=torch.bfloat16)  # its head is tied to its embedding
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(KeyError), computing_in_float32(model):
        assert model.dtype == torch.float32
        assert model.lm_head.weight is model.transformer.wte.weight
        with torch.no_grad():
            assert model(random_ids(1, 4)).logits.dtype == torch.float32
        raise KeyError
    assert model.dtype == torch.bfloat16
    for name, tensor in model.state_dict().items():
        assert tensor.equal(before[name])


def test_when_it_applies() -> None:
    half, full = tiny_model(dtype=torch.bfloat16), tiny_model()
    assert computes_in_float32(half.device, "auto")
    assert computes_in_float32(half.device, "float32")
    assert not computes_in_float32(half.device, "model")
    with computing_in_float32(full):
        assert full.dtype == torch.float32
