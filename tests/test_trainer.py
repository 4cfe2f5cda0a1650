"""Pruning what a Trainer holds, with the Trainer itself, TRL's SFTTrainer and PEFT."""

from pathlib import Path

import datasets
import pytest
import torch
from peft import LoraConfig
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForLanguageModeling,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer

from optimum_sleb import (
    CalibrationError,
    SLEBConfig,
    SLEBPruner,
    UnsupportedModelError,
    healing_record,
    save_healed,
)
from optimum_sleb.calibration.sources import load_calibration
from optimum_sleb.trainer import calibration_of

from .conftest import make_text
from .families import tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = SLEBConfig(num_blocks_to_remove=2)


def arguments(kind: type = TrainingArguments, **values):
    defaults = {"report_to": [], "max_steps": 2, "use_cpu": True, "disable_tqdm": True, "save_strategy": "no"}
    return kind(**{**defaults, "per_device_eval_batch_size": 3, **values})


def tokenised(tokenizer, num_rows: int = 5, seed: int = 0) -> datasets.Dataset:
    texts = [make_text(8 + number, seed=seed + number) for number in range(num_rows)]
    return datasets.Dataset.from_list([{"id": "a", **tokenizer(text)} for text in texts])


def plain_trainer(folder: Path, model: PreTrainedModel, tokenizer, **values) -> Trainer:
    values = {"train_dataset": tokenised(tokenizer), **values}
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    args = arguments(output_dir=str(folder / "run"))
    return Trainer(model, args, data_collator=collator, processing_class=tokenizer, **values)


def completions(num_rows: int = 4) -> datasets.Dataset:
    rows = [{"prompt": make_text(6, seed=n), "completion": " " + make_text(3, seed=n + 50)} for n in range(num_rows)]
    return datasets.Dataset.from_list(rows)


def sft_trainer(folder: Path, model: PreTrainedModel, tokenizer, peft_config=None, **values) -> SFTTrainer:
    args = arguments(SFTConfig, output_dir=str(folder / "run"), bf16=False, **values)
    data = completions()
    return SFTTrainer(
        model, args, train_dataset=data, eval_dataset=data, processing_class=tokenizer, peft_config=peft_config
    )


@pytest.mark.long
def test_equals_pruning_the_same_rows_by_hand(tmp_path: Path, tokenizer) -> None:
    data = tokenised(tokenizer)
    pruner = SLEBPruner.from_trainer(plain_trainer(tmp_path, tiny_model(), tokenizer, eval_dataset=data))
    pruner.prune(CONFIG)
    by_hand = SLEBPruner(tiny_model(), tokenizer)
    by_hand.prune(CONFIG, calibration=data)
    assert pruner.report.calibration.fingerprint == by_hand.report.calibration.fingerprint
    assert pruner.report.steps[-1].candidate_losses == by_hand.report.steps[-1].candidate_losses
    assert pruner.report.calibration.source == pruner.report.recipe.dataset == "the trainer's eval data set"


def test_the_train_data_where_there_are_no_others_in_their_order(tmp_path: Path, tokenizer) -> None:
    trainer = plain_trainer(tmp_path, tiny_model(), tokenizer)
    loaded = load_calibration(calibration_of(trainer), None, CONFIG)
    assert loaded.source == "the trainer's train data set"
    assert [window.tolist() for window in loaded.windows.windows] == tokenised(tokenizer)["input_ids"]


def test_the_trainers_own_evaluations_are_not_disturbed(tmp_path: Path, tokenizer) -> None:
    """With persistent workers a Trainer keeps the first loader that it is asked to evaluate on."""
    data = tokenised(tokenizer, seed=20)
    trainer = plain_trainer(tmp_path, tiny_model(), tokenizer, eval_dataset=data)
    trainer.args.dataloader_num_workers, trainer.args.dataloader_persistent_workers = 1, True
    calibration_of(trainer, tokenised(tokenizer))
    assert trainer.get_eval_dataloader().dataset["input_ids"] == data["input_ids"]
    loaded = load_calibration(calibration_of(trainer, tokenised(tokenizer)), None, CONFIG)
    assert loaded.windows.windows[0].tolist() == tokenised(tokenizer)["input_ids"][0]


def test_streamed_data(tmp_path: Path, tokenizer) -> None:
    data = tokenised(tokenizer).to_iterable_dataset()
    trainer = plain_trainer(tmp_path, tiny_model(), tokenizer, eval_dataset=data)
    loaded = load_calibration(calibration_of(trainer), None, SLEBConfig(num_blocks_to_remove=1, max_windows=3))
    assert [window.tolist() for window in loaded.windows.windows] == tokenised(tokenizer)["input_ids"][:3]


@pytest.mark.long
def test_data_of_ones_own(tmp_path: Path, tokenizer) -> None:
    trainer = plain_trainer(tmp_path, tiny_model(), tokenizer, eval_dataset={"a": tokenised(tokenizer)})
    with pytest.raises(CalibrationError, match=r"on several data sets \('a'\); say which .*dataset=trainer.eval_data"):
        SLEBPruner.from_trainer(trainer)
    pruner = SLEBPruner.from_trainer(trainer, dataset=trainer.eval_dataset["a"])
    pruner.prune(CONFIG)
    assert pruner.report.calibration.source == "a data set, through the trainer's collator"
    other = SLEBPruner.from_trainer(plain_trainer(tmp_path, tiny_model(), tokenizer))
    other.prune(CONFIG, calibration=DataLoader(torch.arange(3, 33).view(3, 10)))
    assert other.report.calibration.source == "a DataLoader"


def test_raw_data_of_ones_own(tmp_path: Path, tokenizer) -> None:
    """TRL tokenises when a trainer is made."""
    trainer = sft_trainer(tmp_path, tiny_model(), tokenizer)
    with pytest.raises(
        CalibrationError, match="columns prompt, completion, but no input_ids for .* trainer.eval_dataset"
    ):
        SLEBPruner.from_trainer(trainer, dataset=completions())


def test_a_collator_that_gives_no_mask(tmp_path: Path, tokenizer) -> None:
    data = tokenised(tokenizer)
    trainer = plain_trainer(tmp_path, tiny_model(), tokenizer, eval_dataset=data)
    collate = trainer.data_collator

    def without_mask(features):
        batch = collate([{"input_ids": row["input_ids"][: 4 + number]} for number, row in enumerate(features)])
        return {"input_ids": batch["input_ids"], "labels": batch["labels"]}

    trainer.data_collator = without_mask
    loaded = load_calibration(calibration_of(trainer), None, CONFIG)
    size = trainer.args.per_device_eval_batch_size
    expected = [ids[: 4 + number % size] for number, ids in enumerate(data["input_ids"])]
    assert [window.tolist() for window in loaded.windows.windows] == expected


def test_the_loss_is_the_trainers_own(tmp_path: Path, tokenizer) -> None:
    """Completions have one length here, so that a mean over batches is a mean over tokens."""
    trainer = sft_trainer(tmp_path, tiny_model(), tokenizer, per_device_eval_batch_size=2)
    expected = trainer.evaluate()["eval_loss"]
    pruner = SLEBPruner.from_trainer(trainer)
    pruner.prune(SLEBConfig(num_blocks_to_remove=2, loss="labels"))
    assert torch.tensor(pruner.report.perplexity_before).log().item() == pytest.approx(expected, rel=1e-5)
    assert pruner.report.calibration.num_labels == 4 * 4  # completions have 3 words and an end


def test_completion_only_differs_from_all_tokens(tmp_path: Path, tokenizer) -> None:
    fingerprints = set()
    for completion_only in (True, False):
        trainer = sft_trainer(tmp_path, tiny_model(), tokenizer, completion_only_loss=completion_only)
        loaded = load_calibration(calibration_of(trainer), None, SLEBConfig(sparsity=0.2, loss="labels"))
        fingerprints.add(loaded.windows.fingerprint)
    assert len(fingerprints) == 2


def labels_of(row: dict) -> list[int]:
    """TRL 1.0 leaves it to the collator to make labels of the mask."""
    if "labels" in row:
        return row["labels"]
    return [token if counts else -100 for token, counts in zip(row["input_ids"], row["completion_mask"], strict=True)]


@pytest.mark.parametrize("padding_free", [False, True])
def test_padding_and_packing_never_count(padding_free: bool, tmp_path: Path, tokenizer) -> None:
    trainer = sft_trainer(tmp_path, tiny_model(), tokenizer)
    trainer.data_collator.padding_free = padding_free
    loaded = load_calibration(calibration_of(trainer), None, SLEBConfig(sparsity=0.2, loss="labels"))
    rows = list(trainer.eval_dataset)
    assert [window.tolist() for window in loaded.windows.windows] == [row["input_ids"] for row in rows]
    expected = [[*labels_of(row)[1:], -100] for row in rows]
    assert [row.tolist() for row in loaded.windows.targets] == expected


@pytest.mark.long
def test_what_was_trained_is_saved_with_a_cache_and_is_no_longer_the_dense_model(tmp_path: Path, tokenizer) -> None:
    tiny_model().save_pretrained(tmp_path / "dense")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "dense")
    trainer = plain_trainer(tmp_path, model, tokenizer)
    assert SLEBPruner.from_trainer(trainer)._base_model == str(tmp_path / "dense")
    trainer.train()
    pruner = SLEBPruner.from_trainer(trainer)
    pruner.prune(CONFIG)
    assert pruner.report.base_model == str(tmp_path / "run")
    folder = pruner.save_pretrained(tmp_path / "pruned")
    again = AutoModelForCausalLM.from_pretrained(folder)
    assert again.config.use_cache is True
    assert again.config.num_hidden_layers == 4
    assert (folder / "tokenizer.json").is_file()


def test_adapters_are_refused_with_the_remedy(tmp_path: Path, tokenizer) -> None:
    lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    trainer = sft_trainer(tmp_path, tiny_model(), tokenizer, lora)
    with pytest.raises(UnsupportedModelError, match=r"merge them first \(model = model.merge_and_unload\(\)\)"):
        SLEBPruner.from_trainer(trainer)


def test_sharded_models_are_refused_with_the_remedy(tmp_path: Path, tokenizer, monkeypatch) -> None:
    trainer = plain_trainer(tmp_path, tiny_model(), tokenizer)
    monkeypatch.setattr(trainer, "is_fsdp_enabled", True)
    with pytest.raises(UnsupportedModelError, match=r"save the model \(trainer.save_model\(folder\)\) and prune what"):
        SLEBPruner.from_trainer(trainer)


def test_images_are_refused() -> None:
    batches = DataLoader([{"input_ids": torch.arange(4), "pixel_values": torch.zeros(3)}])
    with pytest.raises(CalibrationError, match="The batches hold pixel_values beside token ids"):
        load_calibration(batches, None, CONFIG)


@pytest.mark.long
def test_mixed_precision_is_taken_off(tmp_path: Path, tokenizer) -> None:
    """accelerate puts it around the forward in place; what is pruned, and saved, computes as a loaded model does."""
    pruner = SLEBPruner(tiny_model(), tokenizer)
    pruner.remove([3])
    pruner.save_pretrained(tmp_path / "parent")
    trainer = plain_trainer(tmp_path, AutoModelForCausalLM.from_pretrained(tmp_path / "parent"), tokenizer)
    trainer.args = arguments(output_dir=str(tmp_path / "run"), bf16=True)
    trainer.create_accelerator_and_postprocess()
    for _ in range(2):
        trainer.train()
    assert hasattr(trainer.model, "_original_forward"), "this version of accelerate does it otherwise"
    healing = healing_record(trainer, "full fine-tuning", "text")
    save_healed(trainer.model, tmp_path / "healed", parent=tmp_path / "parent", healing=healing)
    trainer.train()
    pruner = SLEBPruner.from_trainer(trainer)
    pruner.prune(SLEBConfig(num_blocks_to_remove=1))
    pruner.save_pretrained(tmp_path / "pruned")
