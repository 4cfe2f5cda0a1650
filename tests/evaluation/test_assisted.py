import copy

import pytest

from optimum_sleb import ConfigError
from optimum_sleb.evaluation.assisted import AssistedGeneration, assisted_generation
from optimum_sleb.evaluation.timing import Timing

from ..families import VOCAB_SIZE, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = {"prompts": ["w3 w4 w5", "w9"], "new_tokens": 12, "repeats": 2}


@pytest.mark.long
def test_a_draft_that_is_the_model_itself_is_always_right(tokenizer) -> None:
    draft, dense = tiny_model(), tiny_model()
    before = copy.deepcopy(draft.generation_config)
    result = assisted_generation(draft, dense, tokenizer, **OPTIONS)
    assert result.acceptance > 0.9  # at the end of a text a last proposal may be one too many
    assert result.same_tokens == 1.0
    assert 2 <= result.num_tokens <= 24
    assert len(result.plain.seconds) == len(result.assisted.seconds) == 2
    assert draft.generation_config == before
    assert not draft._forward_hooks
    assert not dense._forward_hooks


@pytest.mark.long
def test_whatever_the_draft_says_the_text_is_the_dense_models(tokenizer) -> None:
    result = assisted_generation(tiny_model(seed=1), tiny_model(), tokenizer, **OPTIONS)
    assert result.acceptance < 0.5
    assert result.same_tokens == 1.0


def test_what_is_told() -> None:
    slow = AssistedGeneration(0.25, 0.995, 100, Timing((2.0,)), Timing((4.0,)))
    assert slow.summary() == (
        "As a draft for the dense model, greedy, one text at a time: 25% of its tokens were accepted, 99.5% of all "
        "tokens are those of the dense model alone, and 50.0 tokens/s became 25.0 (0.50x, so it does not pay here)."
    )
    assert (
        AssistedGeneration(0.9, 1.0, 100, Timing((2.0,)), Timing((1.0,))).summary().endswith("became 100.0 (2.00x).")
    )


def test_refusals(tokenizer) -> None:
    for draft, prompts in ((tiny_model(vocab_size=VOCAB_SIZE + 1), ["w3"]), (tiny_model(), [])):
        with pytest.raises(ConfigError, match="A draft needs the vocabulary of its dense model and a text"):
            assisted_generation(draft, tiny_model(), tokenizer, prompts=prompts)
