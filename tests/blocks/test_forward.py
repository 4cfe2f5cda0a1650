import pytest
import torch
from transformers import PreTrainedModel

from optimum_sleb.blocks.forward import evaluating, logits_of, same_logits

from ..families import random_ids


def test_logits_are_the_models_own(llama: PreTrainedModel) -> None:
    ids = random_ids(2, 6)
    with torch.no_grad():
        assert logits_of(llama, ids).equal(llama(ids).logits)


def test_evaluating_restores_every_flag_after_an_error(llama: PreTrainedModel) -> None:
    llama.train()
    llama.model.layers[2].eval()
    flags = [module.training for module in llama.modules()]
    with pytest.raises(KeyError), evaluating(llama):
        assert not any(module.training for module in llama.modules())
        assert not torch.is_grad_enabled()
        raise KeyError
    assert [module.training for module in llama.modules()] == flags
    assert torch.is_grad_enabled()


def test_same_logits() -> None:
    one = torch.randn(2, 3)
    assert same_logits(one, one + 1e-8)
    assert not same_logits(one, one + 1e-3)
    assert not same_logits(one, one[:1])
