"""One call from a pruned model to a healed one: the three methods, their data, and what is remembered."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedModel, Trainer, TrainingArguments

from optimum_sleb import ReportError, SLEBPruner, heal, perplexity, save_healed
from optimum_sleb.errors import JournalError

from ..conftest import make_text, make_tokenizer
from ..families import tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

# Words in a fixed order, which a model this small can learn.
TEXT = " ".join([make_text(10)] * 40)
QUICK: dict[str, Any] = {"batch_size": 4, "window_length": 20, "steps": 12, "disable_tqdm": True}


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    pruner = SLEBPruner(tiny_model(), make_tokenizer(add_bos=False))
    pruner.remove([2, 3])
    return pruner.save_pretrained(tmp_path / "pruned")


@pytest.fixture
def pruned(parent: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(parent)


@pytest.fixture
def text_path(tmp_path: Path) -> str:
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    return str(file)


def same_weights(one: PreTrainedModel, other: PreTrainedModel) -> bool:
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


def ids_of(text: str) -> torch.Tensor:
    return torch.tensor([make_tokenizer(add_bos=False)(text).input_ids])


@torch.no_grad()
def divergence(model: PreTrainedModel, dense: PreTrainedModel, ids: torch.Tensor) -> float:
    given, wanted = (one(ids).logits.log_softmax(-1) for one in (model, dense))
    return torch.nn.functional.kl_div(given, wanted, log_target=True, reduction="sum").item()


@pytest.mark.long
@pytest.mark.parametrize(
    ("method", "more", "words"),
    [("lora", {"rank": 4}, "LoRA of rank 4, merged"), ("full", {}, "full fine-tuning")],
)
def test_it_learns_the_text(method: Any, more: dict, words: str, pruned, tokenizer, text_path, tmp_path: Path) -> None:
    before = perplexity(pruned, tokenizer, text_path, window_length=20).perplexity
    assert heal(pruned, tokenizer, method, data=[TEXT], **QUICK, **more) is pruned
    assert perplexity(pruned, tokenizer, text_path, window_length=20).perplexity < before
    report = save_healed(pruned, tmp_path / "healed")
    (healing,) = report.healing
    assert (healing.method, healing.steps, healing.tokens) == (words, 12, 12 * 4 * 20)
    assert healing.dataset == "a list of 1 texts"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "healed").config.use_cache is True
    assert all(parameter.requires_grad for parameter in pruned.parameters())
    with pytest.raises(ReportError, match="Nothing is known of how this model was healed"):
        save_healed(pruned, tmp_path / "again")


@pytest.mark.long
def test_full_fine_tuning_is_the_trainer_s(pruned, parent, tokenizer, text_path: str, tmp_path: Path) -> None:
    """As a script does it that cuts the text by hand and gives the rows to a Trainer."""
    heal(pruned, tokenizer, "full", data=text_path, learning_rate=1e-3, **QUICK)
    ids = tokenizer(TEXT).input_ids
    rows = [ids[start : start + 20] for start in range(0, len(ids), 20)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "run"),
        max_steps=12,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        lr_scheduler_type="cosine",
        warmup_steps=1,
        seed=0,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    by_hand = AutoModelForCausalLM.from_pretrained(parent)
    Trainer(by_hand, arguments, train_dataset=Dataset.from_dict({"input_ids": rows, "labels": rows})).train()
    assert same_weights(pruned, by_hand)


@pytest.mark.long
def test_distillation_brings_the_dense_model_nearer(pruned, parent, model_folder, tokenizer, tmp_path: Path) -> None:
    heal(pruned, tokenizer, "distill", data=[TEXT], teacher=model_folder, **QUICK)
    before, dense = AutoModelForCausalLM.from_pretrained(parent), tiny_model()
    assert divergence(pruned, dense, ids_of(TEXT[:200])) < 0.9 * divergence(before, dense, ids_of(TEXT[:200]))
    (healing,) = save_healed(pruned, tmp_path / "healed").healing
    assert healing.method == "distillation from dense"


@pytest.mark.long
@pytest.mark.parametrize("more", [{"rank": 4}, {"per_device_train_batch_size": 2}, {"gradient_checkpointing": True}])
def test_a_teacher_at_hand_and_one_that_wrote_all_down(more: dict, pruned, parent, tokenizer, tmp_path: Path) -> None:
    """With all tokens kept the two lose the same, up to the rounding of what was written."""
    at_hand, settings = AutoModelForCausalLM.from_pretrained(parent), {**QUICK, **more, "steps": 3}
    heal(at_hand, tokenizer, "distill", data=[TEXT], teacher=tiny_model(), **settings)
    cache = {"cache_teacher": tmp_path / "teacher", "teacher_top_k": 100}
    heal(pruned, tokenizer, "distill", data=[TEXT], teacher=tiny_model(), **settings, **cache)
    start, ids = AutoModelForCausalLM.from_pretrained(parent), ids_of(TEXT[:200])
    assert divergence(pruned, at_hand, ids) < 1e-3 * divergence(start, at_hand, ids)


@pytest.mark.long
def test_what_the_teacher_wrote_is_read_without_it(pruned, parent, tokenizer, model_folder, tmp_path: Path) -> None:
    cache = {"cache_teacher": tmp_path / "teacher", "teacher_top_k": 8, "teacher": str(model_folder)}
    heal(pruned, tokenizer, "distill", data=[TEXT], **cache, **QUICK)
    (model_folder / "model.safetensors").unlink()
    again = AutoModelForCausalLM.from_pretrained(parent)
    heal(again, tokenizer, "distill", data=[TEXT], **cache, **QUICK)
    assert same_weights(pruned, again)
    with pytest.raises(JournalError, match="was computed with data="):
        heal(again, tokenizer, "distill", data=[make_text(300)], **cache, **QUICK)
    with pytest.raises(JournalError, match="was computed with top_k=8, but now it is 4"):
        heal(again, tokenizer, "distill", data=[TEXT], **{**cache, "teacher_top_k": 4}, **QUICK)


@pytest.mark.long
@pytest.mark.parametrize("packing", [True, False])
def test_only_completions_are_learned(packing: bool, pruned, tokenizer) -> None:
    """The gradient at prompts is none: so rows that differ in the loss at prompts alone train the same."""
    rows = [{"prompt": "w3 w4", "completion": " w5 w6"}, {"prompt": "w7", "completion": " w8"}] * 8
    data = Dataset.from_list(rows)
    heal(pruned, tokenizer, "full", data=data, packing=packing, learning_rate=1e-2, **QUICK)
    logits = pruned(ids_of("w3 w4 w5 w6 </s>")).logits[0].softmax(-1)
    learned = [logits[place, token].item() for place, token in ((1, 5), (2, 6), (3, 2))]
    assert min(learned) > 0.5
    assert logits[0, 4] < 0.2  # of the prompt


@pytest.mark.long
def test_minutes(pruned, tokenizer) -> None:
    more = {name: value for name, value in QUICK.items() if name != "steps"}
    heal(pruned, tokenizer, "full", data=[TEXT], minutes=0.02, **more)


@pytest.mark.long
@pytest.mark.parametrize("method", ["lora", "full"])
def test_resumed(method: Any, pruned, parent, tokenizer, tmp_path: Path) -> None:
    heal(pruned, tokenizer, method, data=[TEXT], output_dir=tmp_path / "whole", **QUICK)
    run, again = {"output_dir": tmp_path / "run"}, AutoModelForCausalLM.from_pretrained(parent)
    with pytest.raises(KeyboardInterrupt):
        heal(again, tokenizer, method, data=[TEXT], **QUICK, **run, optim_args="stop")
