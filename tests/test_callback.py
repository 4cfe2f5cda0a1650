"""Pruning at the end of a training, from its best checkpoint."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, TrainerCallback

from optimum_sleb import (
    CalibrationError,
    ConfigError,
    OutputFolderError,
    PruningReport,
    SLEBCallback,
    SLEBConfig,
    SLEBPruner,
    UnsupportedModelError,
)

from .conftest import ROOT
from .families import tiny_model
from .test_trainer import plain_trainer, sft_trainer, tokenised

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = SLEBConfig(num_blocks_to_remove=2)


class Listener(TrainerCallback):
    """Keeps what is logged until the training ends, as TensorBoard does."""

    def __init__(self) -> None:
        self.logged: dict = {}
        self.closed = False

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        assert not self.closed
        self.logged.update(logs)

    def on_train_end(self, *args, **kwargs) -> None:
        self.closed = True


def same_weights(one, other) -> bool:
    other = other.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in one.state_dict().items())


@pytest.mark.long
def test_the_best_checkpoint_is_pruned_saved_and_logged(tmp_path: Path, tokenizer) -> None:
    model = tiny_model()
    trainer = plain_trainer(tmp_path, model, tokenizer, eval_dataset=tokenised(tokenizer, seed=20))
    trainer.args.eval_strategy = trainer.args.save_strategy = "steps"
    trainer.args.eval_steps = trainer.args.save_steps = 1
    trainer.args.metric_for_best_model = "eval_loss"
    trainer.args.greater_is_better = True  # it falls, so the first checkpoint is the best
    listener = Listener()
    trainer.add_callback(listener)
    trainer.add_callback(SLEBCallback(trainer, CONFIG))
    trainer.train()

    assert trainer.state.best_model_checkpoint.endswith("checkpoint-1")
    report = PruningReport.load(tmp_path / "run-sleb")
    by_hand = SLEBPruner.from_pretrained(tmp_path / "run" / "checkpoint-1", dtype="auto")
    pruned = by_hand.prune(CONFIG, calibration=trainer.eval_dataset)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "run-sleb")
    assert same_weights(again, pruned)
    assert again.config.use_cache is True
    assert (tmp_path / "run-sleb" / "tokenizer.json").is_file()

    assert listener.logged["sleb_perplexity_after"] == report.perplexity_after
    assert listener.logged["sleb_blocks_after"] == 4
    assert any("sleb_parameters_after" in entry for entry in trainer.state.log_history)


@pytest.mark.long
def test_the_live_model_stays_as_it_is(tmp_path: Path, tokenizer) -> None:
    weights = {}
    for name in ("with", "without"):
        model = tiny_model()
        trainer = plain_trainer(tmp_path / name, model, tokenizer)
        if name == "with":
            trainer.add_callback(SLEBCallback(trainer, CONFIG))
        trainer.train()
        assert len(model.model.layers) == 6
        assert model.training
        weights[name] = model
    assert same_weights(weights["with"], weights["without"])
    # Without checkpoints the model as it was in the end is the one that is pruned.
    assert (tmp_path / "with" / "run" / "model.safetensors").is_file()
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "with" / "run-sleb").config.num_hidden_layers == 4


@pytest.mark.long
def test_a_checkpoint_of_an_earlier_training_is_passed_over(tmp_path: Path, tokenizer) -> None:
    trainer = plain_trainer(tmp_path, tiny_model(), tokenizer)
    tiny_model(seed=1).save_pretrained(tmp_path / "run" / "checkpoint-2")
    trainer.add_callback(SLEBCallback(trainer, CONFIG))
    trainer.train()
    pruned = AutoModelForCausalLM.from_pretrained(tmp_path / "run-sleb")
    assert pruned.get_input_embeddings().weight.equal(trainer.model.get_input_embeddings().weight)


@pytest.mark.long
def test_with_trl_on_labels(tmp_path: Path, tokenizer) -> None:
    trainer = sft_trainer(tmp_path, tiny_model(), tokenizer)
    config = SLEBConfig(num_blocks_to_remove=1, loss="labels")
    trainer.add_callback(SLEBCallback(trainer, config, output_dir=tmp_path / "mine"))
    trainer.train()
    assert PruningReport.load(tmp_path / "mine").calibration.num_labels == 16


def test_other_processes_wait_and_write_nothing(tmp_path: Path, tokenizer, monkeypatch) -> None:
    trainer = plain_trainer(tmp_path, tiny_model(), tokenizer)
    callback = SLEBCallback(trainer, CONFIG)
    waited = []
    monkeypatch.setattr(trainer.accelerator, "wait_for_everyone", lambda: waited.append(True))
    monkeypatch.setattr(trainer.state, "is_world_process_zero", False)
    callback.on_train_end(trainer.args, trainer.state, trainer.control)
    assert waited
    assert not (tmp_path / "run-sleb").exists()


def test_what_cannot_be_done_is_refused_before_the_training(tmp_path: Path, tokenizer) -> None:
    trainer = plain_trainer(tmp_path, tiny_model(), tokenizer)
    with pytest.raises(ConfigError, match="removes 6 of 6|num_blocks_to_remove=6"):
        SLEBCallback(trainer, num_blocks_to_remove=6)
    with pytest.raises(ConfigError, match="no argument 'output_dri', .*; did you mean output_dir"):
        SLEBCallback(trainer, CONFIG, output_dri=tmp_path)
    (tmp_path / "run-sleb").mkdir()
    (tmp_path / "run-sleb" / "model.safetensors").touch()
    with pytest.raises(OutputFolderError, match="already holds a model"):
        SLEBCallback(trainer, CONFIG)
    lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    with pytest.raises(UnsupportedModelError, match="merge them first"):
        SLEBCallback(sft_trainer(tmp_path / "lora", tiny_model(), tokenizer, lora), CONFIG)


@pytest.mark.parametrize(("config", "calibration", "message"), [
    (SLEBConfig(num_blocks_to_remove=1, loss="labels"), ["w3 w4 w5"], "carries no labels"),
    (SLEBConfig(num_blocks_to_remove=1), "nowhere.txt", "nowhere.txt"),
])  # fmt: skip
def test_calibration_data_are_tried_before_the_training(
    config: SLEBConfig, calibration: object, message: str, tmp_path: Path, tokenizer
) -> None:
    with pytest.raises(CalibrationError, match=message):
        SLEBCallback(plain_trainer(tmp_path, tiny_model(), tokenizer), config, calibration=calibration)


@pytest.mark.long
def test_a_second_training(tmp_path: Path, tokenizer) -> None:
    trainer = plain_trainer(tmp_path, tiny_model(), tokenizer)
    trainer.add_callback(SLEBCallback(trainer, CONFIG))
    trainer.train()
    with pytest.raises(OutputFolderError, match="already holds a model"):
        trainer.train()
    assert trainer.state.global_step == 0  # refused before the first step


@pytest.mark.long
def test_two_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tests.callback_driver", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "process 0 of 2: logged True" in done.stdout
    assert "process 1 of 2: logged False" in done.stdout
    report = PruningReport.load(tmp_path / "run-sleb")
    assert report.calibration.num_windows == 5  # all rows, not this process's share


@pytest.mark.long
def test_one_of_several_eval_data_sets(tmp_path: Path, tokenizer) -> None:
    several = {"a": tokenised(tokenizer, seed=20), "b": tokenised(tokenizer, seed=30)}
    trainer = plain_trainer(tmp_path, tiny_model(), tokenizer, eval_dataset=several)
    with pytest.raises(CalibrationError, match=r"SLEBCallback\(trainer, config, dataset="):
        SLEBCallback(trainer, CONFIG)
    with pytest.raises(CalibrationError, match="Both calibration and dataset"):
        SLEBCallback(trainer, CONFIG, calibration=several["a"], dataset=several["b"])
    trainer.add_callback(SLEBCallback(trainer, CONFIG, dataset=several["b"]))
    trainer.train()
    expected = SLEBPruner(tiny_model())
    expected.prune(CONFIG, calibration=several["b"])
    report = PruningReport.load(tmp_path / "run-sleb")
    assert report.calibration.fingerprint == expected.report.calibration.fingerprint


@pytest.mark.long
def test_healed_after_the_cut(tmp_path: Path, tokenizer) -> None:
    trainer = plain_trainer(tmp_path, tiny_model(), tokenizer)
    trainer.add_callback(SLEBCallback(trainer, CONFIG, heal_steps=3))
    trainer.train()
    report = PruningReport.load(tmp_path / "run-sleb")
    (healing,) = report.healing
    assert (healing.method, healing.dataset) == ("LoRA of rank 64, merged", "the trainer's train data set")
    assert healing.steps == 3
    assert len(report.removed_blocks) == 2
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "run-sleb")
    pruned = SLEBPruner.from_pretrained(tmp_path / "run", dtype="auto")
    pruned.remove(report.removed_blocks)
    assert not same_weights(again, pruned.model)


def test_healing_that_cannot_be(tmp_path: Path, tokenizer) -> None:
    trainer = plain_trainer(tmp_path, tiny_model(), tokenizer)
    with pytest.raises(ConfigError, match="steps must be a whole number above 0; got 0"):
        SLEBCallback(trainer, CONFIG, heal_steps=0)
    trainer = plain_trainer(tmp_path, tiny_model(), tokenizer, train_dataset=None, eval_dataset=tokenised(tokenizer))
    with pytest.raises(CalibrationError, match="no train data set to heal on"):
        SLEBCallback(trainer, CONFIG, heal_steps=3)
