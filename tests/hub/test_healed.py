"""A fine-tuned pruned model, saved with its parent's story carried on."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from optimum_sleb import (
    EvaluationRecord,
    HealingRecord,
    OutputFolderError,
    PruningReport,
    ReportError,
    SLEBConfig,
    SLEBPruner,
    UnsupportedModelError,
    save_healed,
)
from optimum_sleb.card.commands import repeat_commands
from optimum_sleb.hub.card_update import add_to_report_and_card
from optimum_sleb.hub.healed import healing_record
from optimum_sleb.hub.model_files import check_model_folder

from ..conftest import make_text, make_tokenizer
from ..families import tiny_model
from ..test_trainer import plain_trainer
from .local_hub import LocalHub

pytestmark = pytest.mark.usefixtures("one_thread")

HEALING = HealingRecord("full fine-tuning", "/home/me/text.jsonl", steps=300, seconds=90.0, tokens=2_457_600)
PRUNED = EvaluationRecord("perplexity", "c4", "8 windows", after=74.8, before=30.5)
HEALED = EvaluationRecord("perplexity", "c4", "8 windows", after=41.25)


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    pruner = SLEBPruner(tiny_model(), make_tokenizer(add_bos=False))
    pruner.prune(SLEBConfig(num_blocks_to_remove=2, window_length=20), calibration=[make_text(200)])
    folder = pruner.save_pretrained(tmp_path / "pruned")
    add_to_report_and_card(folder, [PRUNED, replace(PRUNED, dataset="wikitext2")])
    return folder


def heal(folder: Path) -> PreTrainedModel:
    """What a Trainer leaves: other weights, and no cache."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.config.use_cache = False
    with torch.no_grad():
        model.lm_head.weight += 0.01
    return model


@pytest.mark.long
def test_the_folder_is_ordinary_and_generates_with_a_cache(parent: Path, tmp_path: Path) -> None:
    model = heal(parent)
    report = save_healed(model, tmp_path / "healed", parent=parent, healing=HEALING, evaluations=[HEALED])
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "healed")
    assert again.config.use_cache is True
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert model.name_or_path == str(tmp_path / "healed")
    assert (tmp_path / "healed" / "tokenizer.json").is_file()
    assert SLEBConfig.from_pretrained(tmp_path / "healed") == report.recipe
    # Complete and of its own weights, so that it can be pushed and evaluated like any other.
    assert check_model_folder(tmp_path / "healed") == report == PruningReport.load(tmp_path / "healed")
    assert report.weights_sha256 != PruningReport.load(parent).weights_sha256
    assert report.steps == PruningReport.load(parent).steps
    assert "then healed: full fine-tuning on /home/me/text.jsonl, 300 steps" in report.summary()


@pytest.mark.long
def test_the_card_shows_all_three_models(parent: Path, tmp_path: Path) -> None:
    save_healed(heal(parent), tmp_path / "healed", parent=parent, healing=HEALING, evaluations=[HEALED])
    text = (tmp_path / "healed" / "README.md").read_text()
    assert "| | dense | pruned | healed | how it was measured |\n|---|---:|---:|---:|---|\n" in text
    assert "| decoder blocks | 6 | 4 | 4 |" in text
    assert "| perplexity, c4 | 30.50 | 74.80 | 41.25 | 8 windows |" in text
    assert "wikitext2" not in text  # measured on the parent only
    assert "fine-tuned after the cut" in text
    assert "without any fine-tuning" not in text
    assert "- full fine-tuning on text.jsonl: 300 steps, 2,457,600 tokens, 1.5 minutes\n" in text
    assert "/home/me" not in text
    # Of the calibration text the healed model was not asked.
    assert [result.metric_value for result in ModelCard(text).data.eval_results] == [41.25]


@pytest.mark.long
def test_without_a_measurement_the_card_says_so(parent: Path, tmp_path: Path) -> None:
    save_healed(heal(parent), tmp_path / "healed", parent=parent, healing=replace(HEALING, tokens=None))
    text = (tmp_path / "healed" / "README.md").read_text()
    assert "No quality was measured on this model." in text
    assert "- full fine-tuning on text.jsonl: 300 steps, 1.5 minutes\n" in text


@pytest.mark.long
def test_what_is_measured_later_keeps_the_pruned_number(parent: Path, tmp_path: Path) -> None:
    save_healed(heal(parent), tmp_path / "healed", parent=parent, healing=HEALING, evaluations=[HEALED])
    report = add_to_report_and_card(tmp_path / "healed", [replace(HEALED, after=40.0, before=30.5)])
    assert report.evaluations == (replace(HEALED, after=40.0, before=30.5, pruned=74.8),)


@pytest.mark.long
def test_measured_only_later(parent: Path, tmp_path: Path) -> None:
    """By commands the healed model is saved first, and measured by the next one."""
    save_healed(heal(parent), tmp_path / "once", parent=parent, healing=HEALING)
    save_healed(heal(tmp_path / "once"), tmp_path / "twice", healing=HEALING)
    for folder in ("once", "twice"):
        report = add_to_report_and_card(tmp_path / folder, [HEALED])
        assert report.evaluations == (replace(HEALED, before=30.5, pruned=74.8),)
        assert "74.8" in (tmp_path / folder / "README.md").read_text()


@pytest.mark.long
def test_a_revision_of_the_parent(tmp_path: Path, hub: LocalHub) -> None:
    for revision, blocks in ((None, [1, 2]), ("v1", [2, 3])):
        pruner = SLEBPruner(tiny_model(), make_tokenizer(add_bos=False))
        pruner.remove(blocks)
        pruner.push_to_hub("me/pruned", revision=revision)
    model = AutoModelForCausalLM.from_pretrained("me/pruned", revision="v1")
    report = save_healed(model, tmp_path / "healed", parent="me/pruned", revision="v1", healing=HEALING)
    assert report.removed_blocks == (2, 3)
    with pytest.raises(ReportError, match="removed"):
        save_healed(model, tmp_path / "other", parent="me/pruned", healing=HEALING)


@pytest.mark.long
def test_healed_twice(parent: Path, tmp_path: Path) -> None:
    once, twice = tmp_path / "once", tmp_path / "twice"
    save_healed(heal(parent), once, parent=parent, healing=HEALING, evaluations=[HEALED])
    better = replace(HEALED, after=38.0)
    report = save_healed(heal(once), twice, parent=once, healing=HEALING, evaluations=[better])
    assert report.healing == (HEALING, HEALING)
    assert report.evaluations == (replace(better, before=30.5, pruned=74.8),)


@pytest.mark.long
def test_pruned_further(parent: Path, tmp_path: Path) -> None:
    save_healed(heal(parent), tmp_path / "healed", parent=parent, healing=HEALING)
    pruner = SLEBPruner.from_pretrained(tmp_path / "healed")
    pruner.remove([pruner.blocks[1]])
    folder = pruner.save_pretrained(tmp_path / "again")
    assert pruner.report.previous.healing == (HEALING,)
    assert not pruner.report.healing
    assert repeat_commands(pruner.report, "out") == []
    assert "The model was fine-tuned between two runs, so no command" in (folder / "README.md").read_text()


@pytest.mark.long
def test_a_shallower_cut_was_not_healed(parent: Path, tmp_path: Path) -> None:
    report = save_healed(heal(parent), tmp_path / "healed", parent=parent, healing=HEALING)
    assert report.cut(1).healing == ()
    pruner = SLEBPruner(tiny_model(), make_tokenizer(add_bos=False))
    pruner.apply(report)
    assert pruner.report.healing == ()


@pytest.mark.long
def test_a_record_from_the_trainer(tmp_path: Path, tokenizer) -> None:
    trainer = plain_trainer(tmp_path, tiny_model(), tokenizer)
    trainer.args.include_num_input_tokens_seen = "non_padding"
    with pytest.raises(ReportError, match="has not trained its model to the end"):
        healing_record(trainer, "full fine-tuning", "text")
    trainer.train()
    record = healing_record(trainer, "full fine-tuning", "text")
    rows = trainer.train_dataset["input_ids"]
    assert record.steps == 2
    assert 0 < record.seconds < 60
    assert record.tokens == 2 * sum(map(len, rows))  # each step takes all five rows
    trainer.args.include_num_input_tokens_seen = "no"
    assert healing_record(trainer, "full fine-tuning", "text").tokens is None


class TestRefusals:
    @pytest.mark.long
    def test_adapters_that_were_not_merged(self, parent: Path, tmp_path: Path) -> None:
        lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(parent), lora)
        with pytest.raises(UnsupportedModelError, match="merge them first"):
            save_healed(model, tmp_path / "healed", parent=parent, healing=HEALING)

    @pytest.mark.long
    def test_another_model(self, parent: Path, tmp_path: Path) -> None:
        with pytest.raises(ReportError, match="were removed, the config says"):
            save_healed(tiny_model(), tmp_path / "healed", parent=parent, healing=HEALING)
        model = heal(parent)
        model.resize_token_embeddings(70)
        with pytest.raises(ReportError, match="name the pruned model that was fine-tuned"):
            save_healed(model, tmp_path / "healed", parent=parent, healing=HEALING)

    def test_a_parent_without_a_report(self, model_folder: Path, tmp_path: Path) -> None:
        with pytest.raises(ReportError, match="There is no report beside .*name the pruned model"):
            save_healed(tiny_model(), tmp_path / "healed", parent=model_folder, healing=HEALING)

    @pytest.mark.long
    def test_a_folder_that_holds_a_model(self, parent: Path) -> None:
        with pytest.raises(OutputFolderError, match="already holds a model"):
            save_healed(heal(parent), parent, parent=parent, healing=HEALING)


def test_saved_in_the_parents_precision(tmp_path: Path) -> None:
    """As transformers loads it: rotary frequencies stay in float32, which `model.to(dtype)` would round."""
    pruner = SLEBPruner(tiny_model(dtype=torch.bfloat16), make_tokenizer(add_bos=False))
    pruner.remove([2, 3])
    parent = pruner.save_pretrained(tmp_path / "pruned")
    model = AutoModelForCausalLM.from_pretrained(parent, dtype=torch.float32)
    report = save_healed(model, tmp_path / "healed", parent=parent, healing=HEALING)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "healed")
    assert (again.dtype, model.dtype) == (torch.bfloat16, torch.float32)
    assert report.weight_bytes_after == pruner.report.weight_bytes_after
    wide = save_healed(model, tmp_path / "wide", parent=parent, healing=HEALING, dtype=torch.float32)
    assert wide.weight_bytes_after == 2 * report.weight_bytes_after
    assert sorted(path.name for path in (tmp_path / "wide").iterdir() if path.is_dir()) == []
