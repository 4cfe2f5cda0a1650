"""Pruning on the labels of a task, against transformers' own loss, and against pruning on plain text."""

import math

import datasets
import pytest
import torch
from transformers import PreTrainedModel

from optimum_sleb import SLEBConfig, SLEBPruner
from optimum_sleb.calibration.sources import load_calibration

from .calibration.chatting import chat, chat_tokenizer
from .conftest import make_text
from .families import NUM_BLOCKS, random_ids, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPT, ANSWER = 10, 20  # token ids


def completions(ids: torch.Tensor, num_prompt: int) -> datasets.Dataset:
    """Rows of a prompt and a completion, the prompt without labels."""
    labels = ids.clone()
    labels[:, :num_prompt] = -100
    return datasets.Dataset.from_dict({"input_ids": ids.tolist(), "labels": labels.tolist()})


def recipe(**values) -> SLEBConfig:
    return SLEBConfig(**{"num_blocks_to_remove": 2, "loss": "labels", **values})


@pytest.mark.long
@pytest.mark.parametrize("search", ["exact", "reference"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_the_loss_is_the_models_own(search: str, family: str) -> None:
    model = tiny_model(family)
    data = completions(random_ids(4, 12), num_prompt=7)
    batch = {name: torch.tensor(data[name]) for name in data.column_names}
    with torch.no_grad():
        expected = model(**batch).loss.exp().item()
    pruner = SLEBPruner(model)
    pruner.prune(recipe(search=search), calibration=data)
    assert pruner.report.perplexity_before == pytest.approx(expected, rel=1e-5)
    with torch.no_grad():
        assert pruner.report.perplexity_after == pytest.approx(model(**batch).loss.exp().item(), rel=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["messages", "prompt and completion", "chats of prompt and completion"])
def test_the_loss_on_rows_is_the_models_own(kind: str) -> None:
    """On the assistant's turns or the completion, which are what the loss of the model on these labels counts."""
    tokenizer, answers = chat_tokenizer(), [chat(seed) for seed in range(4)]
    rows = {
        "messages": [{"messages": one} for one in answers],
        "prompt and completion": [
            {"prompt": make_text(6, seed=n), "completion": f" {make_text(4)}"} for n in range(4)
        ],
        "chats of prompt and completion": [{"prompt": one[:3], "completion": one[3:]} for one in answers],
    }[kind]
    model, config = tiny_model(), recipe()
    pruner = SLEBPruner(model, tokenizer)
    windows = load_calibration(rows, tokenizer, config).windows
    sums, counted = 0.0, 0
    for ids, targets in zip(windows.windows, windows.targets, strict=True):
        labels = targets.roll(1)[None]
        with torch.no_grad():
            loss = model(input_ids=ids[None], labels=labels).loss.item()
        number = int((targets != -100).sum()) + 1  # see `blocks.losses.window_losses`
        sums, counted = sums + loss * number, counted + number
    pruner.prune(config, calibration=rows)
    assert pruner.report.perplexity_before == pytest.approx(math.exp(sums / counted), rel=1e-5)


@pytest.mark.long
def test_padding_never_counts() -> None:
    ids = random_ids(3, 10)
    labels = ids.clone()
    labels[:, :4] = -100
    plain = datasets.Dataset.from_dict({"input_ids": ids.tolist(), "labels": labels.tolist()})
    padded = {
        "input_ids": [[0, 0, *row, 0] for row in ids.tolist()],
        # Whoever pads carelessly labels the padding too.
        "labels": [[0, 0, *row, 0] for row in labels.tolist()],
        "attention_mask": [[0, 0, *[1] * 10, 0]] * 3,
    }
    reports = []
    for data in (plain, datasets.Dataset.from_dict(padded)):
        for loss in ("labels", "next_token"):
            pruner = SLEBPruner(tiny_model())
            pruner.prune(recipe(loss=loss), calibration=data)
            reports.append((pruner.report.calibration, [step.candidate_losses for step in pruner.report.steps]))
    assert reports[:2] == reports[2:]


@pytest.mark.long
def test_labels_and_plain_text_choose_different_blocks() -> None:
    """Of two blocks, one predicts the prompt and one the answer; prompts are longer, but nobody asks for them."""
    ids = torch.tensor([[PROMPT] * 9 + [ANSWER] * 3])
    data = completions(ids, num_prompt=9)
    barriers = {"num_blocks_to_remove": 1, "early_barrier": 2, "latter_barrier": NUM_BLOCKS - 4}
    removed = {}
    for loss in ("next_token", "labels"):
        pruner = SLEBPruner(_model_of_two_blocks(prompt_block=2, answer_block=3))
        pruner.prune(recipe(loss=loss, **barriers), calibration=data)
        removed[loss] = pruner.report.removed_blocks
    assert removed == {"next_token": (3,), "labels": (2,)}


@pytest.mark.long
@pytest.mark.parametrize("values", [{"search": "racing"}, {"compensate": "during"}, {"max_perplexity_increase": 9.0}])
def test_every_way_to_search_keeps_to_the_labels(values: dict) -> None:
    if "max_perplexity_increase" in values:
        values = {**values, "num_blocks_to_remove": None}
    data = completions(random_ids(12, 12), num_prompt=7)
    model = tiny_model()
    pruner = SLEBPruner(model)
    pruner.prune(recipe(**values), calibration=data)
    batch = {name: torch.tensor(data[name]) for name in data.column_names}
    with torch.no_grad():
        assert pruner.report.perplexity_after == pytest.approx(model(**batch).loss.exp().item(), rel=1e-4)


@pytest.mark.long
def test_recipe_and_report_say_so(tmp_path) -> None:
    data = completions(random_ids(4, 12), num_prompt=7)
    pruner = SLEBPruner(tiny_model())
    pruner.prune(recipe(), calibration=data)
    folder = pruner.save_pretrained(tmp_path / "out")
    assert SLEBConfig.from_pretrained(folder).loss == "labels"
    card = (folder / "README.md").read_text()
    assert "4 windows of 12 tokens, of which 20 carry labels" in card
    assert "The calibration data were in memory, so no command repeats the run" in card
    loaded = load_calibration(data, None, SLEBConfig.from_pretrained(folder))
    assert loaded.windows.fingerprint == pruner.report.calibration.fingerprint


def _model_of_two_blocks(prompt_block: int, answer_block: int) -> PreTrainedModel:
    """A Llama whose every block does nothing, but for two, which predict that the token at hand comes again."""
    model = tiny_model("llama")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1 if "norm" in name else 0)
        for number, (block, token) in enumerate([(prompt_block, PROMPT), (answer_block, ANSWER)]):
            mlp = model.model.layers[block].mlp
            model.model.embed_tokens.weight[token, number] = 1
            mlp.gate_proj.weight[0, number] = mlp.up_proj.weight[0, number] = 1
            mlp.down_proj.weight[2 + number, 0] = 1
            model.lm_head.weight[token, 2 + number] = 1
    return model
