"""One call from a pruned model to a healed one: the three methods, their data, and what is remembered."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel, Trainer, TrainingArguments

from optimum_sleb import (
    CalibrationError,
    ConfigError,
    ReportError,
    SLEBConfig,
    SLEBPruner,
    heal,
    perplexity,
    save_healed,
)
from optimum_sleb.errors import JournalError
from optimum_sleb.healing.data import load_windows
from optimum_sleb.healing.settings import Settings
from optimum_sleb.healing.trainer import RECOMPUTING, checked_arguments
from optimum_sleb.hub.healed import healings_of

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
    Trainer(
        by_hand,
        arguments,
        train_dataset=Dataset.from_dict({"input_ids": rows, "labels": [[-100, *row[1:]] for row in rows]}),
    ).train()
    assert same_weights(pruned, by_hand)


@pytest.mark.long
def test_distillation_brings_the_dense_model_nearer(pruned, parent, model_folder, tokenizer, tmp_path: Path) -> None:
    heal(pruned, tokenizer, "distill", data=[TEXT], teacher=model_folder, **QUICK)
    before, dense = AutoModelForCausalLM.from_pretrained(parent), tiny_model()
    assert divergence(pruned, dense, ids_of(TEXT[:200])) < 0.9 * divergence(before, dense, ids_of(TEXT[:200]))
    (healing,) = save_healed(pruned, tmp_path / "healed").healing
    assert healing.method == "distillation from dense"


@pytest.mark.long
@pytest.mark.parametrize(
    "more",
    [
        {"rank": 4},
        {"rank": 4, "gradient_checkpointing": True},
        {"per_device_train_batch_size": 2},
        {"gradient_checkpointing": True},
    ],
)
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
def test_minutes(pruned, tokenizer, tmp_path: Path) -> None:
    """Steps are timed first, which changes nothing; the number is kept, so that a second start has the same."""
    settings = {name: value for name, value in QUICK.items() if name != "steps"}
    run = {"output_dir": tmp_path / "run", "minutes": 0.02}
    heal(pruned, tokenizer, "full", data=[TEXT], **run, **settings)
    kept = json.loads((tmp_path / "run" / "healing.json").read_text())
    (healing,) = save_healed(pruned, tmp_path / "healed").healing
    assert 1 <= healing.steps <= kept["steps"]
    assert healing.seconds < 10


@pytest.mark.parametrize(("tokens", "steps"), [(1, 1), (80, 1), (81, 2), (1000, 13)])
@pytest.mark.long
def test_tokens(tokens: int, steps: int, pruned, tokenizer, tmp_path: Path) -> None:
    settings = {name: value for name, value in QUICK.items() if name != "steps"}
    heal(pruned, tokenizer, "full", data=[TEXT], tokens=tokens, **settings)
    (healing,) = save_healed(pruned, tmp_path / "healed").healing
    assert (healing.steps, healing.tokens) == (steps, 80 * steps)


@pytest.mark.long
@pytest.mark.parametrize("method", ["lora", "full"])
def test_what_is_finished_is_not_trained_again(method: Any, pruned, parent, tokenizer, tmp_path: Path) -> None:
    run = {"output_dir": tmp_path / "run", "data": [TEXT], **QUICK}
    heal(pruned, tokenizer, method, **run)
    assert (tmp_path / "run" / "adapter_config.json").is_file() is (method == "lora")
    (tmp_path / "run" / "checkpoint-13").mkdir()  # as a kill leaves it
    again = AutoModelForCausalLM.from_pretrained(parent)
    heal(again, tokenizer, method, resume=True, **run)
    assert same_weights(pruned, again)
    assert not (tmp_path / "run" / "checkpoint-13").exists()
    (healing,) = save_healed(again, tmp_path / "healed").healing
    assert healing.steps == 12
    assert healing.tokens == 12 * 80


def test_checkpoints_of_another_training_are_not_touched(pruned, tokenizer, tmp_path: Path) -> None:
    weights = tmp_path / "run" / "checkpoint-500" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    for resume in (False, True):
        with pytest.raises(JournalError, match="holds checkpoints of another training; name another folder"):
            heal(pruned, tokenizer, "full", data=[TEXT], output_dir=tmp_path / "run", resume=resume, **QUICK)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint-500"]
    assert weights.read_bytes() == b"weights"


@pytest.mark.long
def test_another_loss_is_another_healing(pruned, parent, tokenizer, tmp_path: Path) -> None:
    dense = tiny_model()
    run = {"data": [TEXT], "teacher": dense, "output_dir": tmp_path / "run", **QUICK}
    heal(pruned, tokenizer, "distill", cache_teacher=tmp_path / "said", teacher_top_k=4, **run)
    again = AutoModelForCausalLM.from_pretrained(parent)
    for other in ({}, {"cache_teacher": tmp_path / "other", "teacher_top_k": 8}):
        with pytest.raises(JournalError, match="holds a healing with teacher_top_k=4, but now it is"):
            heal(again, tokenizer, "distill", resume=True, **other, **run)


@pytest.mark.long
def test_another_healing_in_the_folder(pruned, parent, tokenizer, tmp_path: Path) -> None:
    run = {"output_dir": tmp_path / "run", **QUICK}
    heal(pruned, tokenizer, "full", data=[TEXT], **run)
    with pytest.raises(JournalError, match="holds a healing that was begun; go on with it"):
        heal(pruned, tokenizer, "full", data=[TEXT], **run)
    fresh = AutoModelForCausalLM.from_pretrained(parent)
    for other, name in (
        ({"data": [make_text(300)]}, "data"),
        ({"data": [TEXT], "learning_rate": 1.0}, "learning_rate"),
    ):
        with pytest.raises(JournalError, match=f"holds a healing with {name}="):
            heal(fresh, tokenizer, "full", resume=True, **other, **run)
    with pytest.raises(JournalError, match="holds a healing with model="):
        heal(pruned, tokenizer, "full", data=[TEXT], resume=True, **run)
    (tmp_path / "run" / "healing.json").write_text("{")
    with pytest.raises(JournalError, match=r"healing\.json is damaged"):
        heal(fresh, tokenizer, "full", data=[TEXT], resume=True, **run)


def test_mixtures_of_text_and_completions(tmp_path: Path, tokenizer, text_path: str) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "w3 w4", "completion": " w5"}\n' * 8)
    recipe = SLEBConfig(num_blocks_to_remove=1, window_length=20, max_windows=8)
    loaded = load_windows(f"{text_path}+{rows}", tokenizer, recipe, "auto", by_tokens=False)
    assert loaded.windows.lengths == [20] * 4 + [4] * 4
    assert loaded.windows.num_labels == 4 * 19 + 4 * 2
    assert loaded.source == f"{text_path}+{rows}"


def test_short_rows_are_read_until_they_are_as_many_tokens(tokenizer) -> None:
    rows = [{"prompt": "w3 w4", "completion": " w5"} for _ in range(100)]
    recipe = SLEBConfig(num_blocks_to_remove=1, window_length=20, max_windows=8)
    for data in (rows, iter(rows)):
        assert len(load_windows(data, tokenizer, recipe, "auto", by_tokens=True).windows) == 40


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"data": None}, ConfigError, "Name what to heal on"),
        ({"method": "sft"}, ConfigError, "method must be one of lora, full, distill; got 'sft'"),
        ({"loss": "all"}, ConfigError, "loss must be one of auto, labels, next_token"),
        ({"loss": "labels"}, CalibrationError, "carries no labels"),
        ({"steps": 1, "tokens": 1}, ConfigError, "steps and tokens were given; keep one"),
        ({"steps": 0}, ConfigError, "steps must be a whole number above 0; got 0"),
        ({"minutes": float("nan")}, ConfigError, "minutes must be a number above 0; got nan"),
        ({"learning_rate": -1.0}, ConfigError, "learning_rate must be a number above 0"),
        ({"batch_size": True}, ConfigError, "batch_size must be a whole number"),
        ({"window_length": 1}, ConfigError, "window_length must be a whole number of at least 2"),
        ({"method": "full", "rank": 4}, ConfigError, "method='full' has none"),
        ({"method": "distill"}, ConfigError, "learns from the dense model; name it"),
        ({"self_data": 8}, ConfigError, "self_data are answers of the dense model; name it"),
        ({"self_data": 0, "teacher": "dense"}, ConfigError, "self_data must be a whole number of answers"),
        ({"teacher": "dense"}, ConfigError, "teacher belongs to method='distill'"),
        ({"cache_teacher": "there"}, ConfigError, "cache_teacher belongs to a teacher"),
        ({"cache_teacher": "a", "teacher": "b", "self_data": 8}, ConfigError, "cache_teacher belongs to method='dis"),
        ({"resume": True}, ConfigError, "goes on from a folder; name it"),
        ({"wieght_decay": 0.1}, ConfigError, "no argument 'wieght_decay' .* did you mean weight_decay"),
        ({"lr_scheduler_type": "none"}, ConfigError, "The Trainer cannot be made with .*lr_scheduler_type='none'"),
        ({"report_to": "nothing"}, ConfigError, "The Trainer cannot be made with report_to='nothing'"),
        ({"max_steps": 3}, ConfigError, "no argument 'max_steps' .* can be set; leave it out"),
        ({"text_column": "body", "data": [{"text": "a"}]}, CalibrationError, "has no field 'body'"),
    ],
)
def test_refusals(more: dict, error: type, message: str, tokenizer, one_thread) -> None:
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(error, match=message):
        heal(model, tokenizer, **{"data": [TEXT], "window_length": 20, **more})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_teacher_of_another_vocabulary(tokenizer, one_thread) -> None:
    with pytest.raises(ConfigError, match="The teacher predicts 70 tokens, but the pruned model 64"):
        heal(tiny_model(), tokenizer, "distill", data=[TEXT], teacher=tiny_model(vocab_size=70), **QUICK)


@pytest.mark.parametrize(("method", "package"), [("lora", "peft"), ("full", "trl")])
def test_a_package_that_is_missing(method: Any, package: str, tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimum_sleb.healing.needs.find_spec", lambda name: None)
    rows = [{"prompt": "w3 w4", "completion": " w5"}] * 8
    with pytest.raises(ConfigError, match=rf"by {package}, which is not installed; .*pip install {package}"):
        heal(tiny_model(), tokenizer, method, data=rows, **QUICK)


@pytest.mark.long
def test_tokenised_rows_are_never_cut(pruned, tokenizer, tmp_path: Path) -> None:
    """The last token of rows that are longer than the window is learned, packed or not."""
    rows = [torch.tensor([3, 4, *range(5, 35), 60]), torch.tensor([7, 8, 9])] * 4
    heal(pruned, tokenizer, "full", data=rows, learning_rate=1e-2, **QUICK)
    assert pruned(rows[0][None]).logits[0, -2].softmax(-1)[60] > 0.5


@pytest.mark.long
def test_quantised_on_loading(parent: Path, tokenizer, tmp_path: Path) -> None:
    """An adapter trained on 4 bits is merged into the model as it was pruned, as docs/healing.md says."""
    pytest.importorskip("bitsandbytes")
    quantised = AutoModelForCausalLM.from_pretrained(
        parent,
        quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32),
        device_map="cpu",
    )
    with pytest.raises(ConfigError, match=r"is quantised \(bitsandbytes\), so its weights cannot be trained"):
        heal(quantised, tokenizer, "full", data=[TEXT], **QUICK)
    heal(quantised, tokenizer, "lora", data=[TEXT], output_dir=tmp_path / "run", learning_rate=1e-2, **QUICK)
    (healing,) = healings_of(quantised)
    pruned = AutoModelForCausalLM.from_pretrained(parent)
    before = pruned(ids_of(TEXT[:60]), labels=ids_of(TEXT[:60])).loss.item()
    whole = PeftModel.from_pretrained(pruned, tmp_path / "run").merge_and_unload()
    assert whole(ids_of(TEXT[:60]), labels=ids_of(TEXT[:60])).loss.item() < 0.5 * before
    assert save_healed(whole, tmp_path / "healed", healing=healing).healing == (healing,)


@pytest.mark.long
@pytest.mark.parametrize("padding", [-1, 64])
def test_a_padding_token_outside_the_vocabulary(padding: int, pruned, tokenizer) -> None:
    """As in the configs of early Llamas, and of models whose tokenizer got a token more."""
    pruned.generation_config.pad_token_id = padding
    rows = [torch.tensor([3, 4, 5, 6]), torch.tensor([7, 8])] * 4
    heal(pruned, tokenizer, "full", data=rows, packing=False, **QUICK)
    (healing,) = healings_of(pruned)
    assert healing.steps == 12


def test_processes_wait_while_one_writes_what_they_read() -> None:
    settings = Settings.of(tiny_model(), "full", None, None, 4, 20, "auto", 0)
    day = 24 * 3600
    assert checked_arguments(settings, tiny_model(), {"report_to": "none"}).ddp_timeout >= day
    assert checked_arguments(settings, tiny_model(), {"report_to": "none", "ddp_timeout": 60}).ddp_timeout == 60


@pytest.mark.long
@pytest.mark.parametrize("more", [{}, {"cache_teacher": "said"}, {"self_data": 4}])
def test_the_teacher_keeps_its_mode(more: dict, pruned, tokenizer, monkeypatch, tmp_path: Path) -> None:
    """And says what it says without dropout."""
    monkeypatch.chdir(tmp_path)
    healed = []
    for in_training in (True, False):
        teacher, student = tiny_model(attention_dropout=0.5).train(in_training), copy.deepcopy(pruned)
        teacher.model.layers[1].train(not in_training)
        modes = [module.training for module in teacher.modules()]
        heal(student, tokenizer, "distill", data=[TEXT], teacher=teacher, **{**QUICK, "steps": 2}, **more)
        assert [module.training for module in teacher.modules()] == modes
        healed.append(student)
    assert same_weights(*healed)


@pytest.mark.long
@pytest.mark.parametrize("budget", [{}, {"steps": None, "minutes": 0.005}])
@pytest.mark.parametrize(("method", "more"), [("lora", {"rank": 2}), ("full", {})])
def test_recomputing_ends_with_the_healing(method: Any, more: dict, budget: dict, pruned, tokenizer, recwarn) -> None:
    """By the names of the installed transformers, which warns of others; what PEFT reads is PEFT's."""
    heal(pruned, tokenizer, method, data=[TEXT], gradient_checkpointing=True, **{**QUICK, **more, **budget})
    old = "`gradient_checkpointing"
    assert [one.message for one in recwarn if str(one.message).startswith(old)] == []
    modules = list(pruned.modules())
    assert not any(getattr(module, "gradient_checkpointing", False) for module in modules)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def test_recomputing_by_either_name() -> None:
    settings = Settings.of(tiny_model(), "full", None, None, 4, 20, "auto", 0)
    large = replace(settings, recomputes=True)
    names = {"gradient_checkpointing", RECOMPUTING}
    for name in names:
        for asked in (True, False):
            for of_model in (settings, large):
                arguments = checked_arguments(of_model, tiny_model(), {name: asked})
                assert all(getattr(arguments, other) is asked for other in names)
    assert checked_arguments(large, tiny_model(), {}).gradient_checkpointing
    assert not checked_arguments(settings, tiny_model(), {}).gradient_checkpointing
