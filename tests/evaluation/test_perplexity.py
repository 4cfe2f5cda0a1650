import math
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from optimum_sleb import CalibrationError, NonFiniteLossError, perplexity


def test_is_the_exponential_of_the_mean_loss(llama: PreTrainedModel, tokenizer, text_file: Path, text: str) -> None:
    result = perplexity(llama, tokenizer, str(text_file), window_length=30)
    ids = tokenizer(text, return_tensors="pt").input_ids[0]
    windows = ids[: len(ids) // 30 * 30].view(-1, 30)
    with torch.no_grad():
        losses = [llama(window[None], labels=window[None]).loss.item() for window in windows]
    assert result.perplexity == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-5)
    assert (result.num_windows, result.window_length, result.bos_per_window) == (13, 30, False)


def test_batches_change_nothing(llama: PreTrainedModel, tokenizer, text_file: Path) -> None:
    alone = perplexity(llama, tokenizer, str(text_file), window_length=30, max_windows=7)
    together = perplexity(llama, tokenizer, str(text_file), window_length=30, max_windows=7, batch_size=4)
    assert together.perplexity == pytest.approx(alone.perplexity, rel=1e-5)


def test_bos_is_said(llama: PreTrainedModel, bos_tokenizer, text_file: Path) -> None:
    assert perplexity(llama, bos_tokenizer, str(text_file), window_length=30).bos_per_window
    published = perplexity(llama, bos_tokenizer, str(text_file), window_length=30, bos_per_window=False)
    assert not published.bos_per_window


def test_refusals(llama: PreTrainedModel, tokenizer, text_file: Path) -> None:
    with pytest.raises(CalibrationError, match="The text has 400 tokens, but one window takes 2048"):
        perplexity(llama, tokenizer, str(text_file))
    llama.get_input_embeddings().weight.data.fill_(float("nan"))
    with pytest.raises(NonFiniteLossError, match="The loss of window 0 of"):
        perplexity(llama, tokenizer, str(text_file), window_length=30)
