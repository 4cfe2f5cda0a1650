import math
from pathlib import Path

import datasets
import pytest
import torch
from transformers import PreTrainedModel

from optimum_sleb import CalibrationError, ConfigError, NonFiniteLossError, evaluate, perplexity

from ..conftest import make_text


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


def test_texts_by_any_name(tmp_path: Path, llama: PreTrainedModel, tokenizer) -> None:
    """Files, patterns and folders give what their text gives, with the options that each has a use for."""
    text = make_text(200)
    (tmp_path / "data").mkdir()
    (tmp_path / "text.txt").write_text(f"{text} é", encoding="latin-1")
    (tmp_path / "data" / "rows.csv").write_text(f'body\n"{text} é"\n', encoding="latin-1")
    datasets.DatasetDict(dev=datasets.Dataset.from_dict({"body": [f"{text} é"]})).save_to_disk(tmp_path / "saved")
    names = [tmp_path / "text.txt", f"{tmp_path}/data/*", f"{tmp_path}/data/", f"{tmp_path}/saved/"]
    options = {"encoding": "latin-1", "dataset_split": "dev", "text_column": "body", "window_length": 16}
    scores = evaluate(llama, tokenizer, map(str, names), **options)
    assert len({score.value for score in scores}) == 1
    assert [score.task for score in scores] == [str(name) for name in names]
    with pytest.raises(ConfigError, match="dataset_split='dev' is for .*, and there is none in"):
        evaluate(llama, tokenizer, [str(names[0])], dataset_split="dev")
