"""Heal a pruned model with LoRA: TRL's SFTTrainer trains an adapter, which is merged and saved as one ordinary model.

    python examples/heal_with_lora.py FOLDER OUTPUT [--text FILE] [--test-text FILE] [--steps 150] [--rank 64]

FOLDER is what `SLEBPruner.save_pretrained` or `optimum-cli sleb prune` wrote. The adapter alone is left in
OUTPUT-adapter; it names FOLDER as its base, for it fits no other model: loaded onto the dense one it would attach its
layers to other blocks, without an error.
"""

from argparse import Namespace
from typing import Any

from datasets import Dataset
from heal_with_trainer import finish, parser_of, prepared, training
from peft import LoraConfig
from transformers import PreTrainedModel
from trl import SFTConfig, SFTTrainer

from optimum_sleb import HealingRecord, healing_record


def heal(
    model: PreTrainedModel, tokenizer: Any, rows: Dataset, name: str, rank: int, arguments: dict[str, Any]
) -> tuple[PreTrainedModel, HealingRecord]:
    """Train an adapter on all linear layers of the blocks, save it, and merge it."""
    lora = LoraConfig(r=rank, lora_alpha=rank, target_modules="all-linear", task_type="CAUSAL_LM")
    # The rows are tokenised and cut already; recomputing activations saves memory that a small model does not need.
    config = SFTConfig(**arguments, max_length=None, gradient_checkpointing=False)
    trainer = SFTTrainer(model, config, train_dataset=rows, processing_class=tokenizer, peft_config=lora)
    trainer.train()
    trainer.save_model(config.output_dir)
    return trainer.model.merge_and_unload(), healing_record(trainer, f"LoRA of rank {rank}, merged", name)


def main(arguments: Namespace) -> None:
    """Load, measure, heal, measure again, save."""
    model, tokenizer, rows, before = prepared(arguments)
    run = arguments.output.with_name(f"{arguments.output.name}-adapter")
    settings = training(run, arguments.steps, arguments.batch_size, arguments.learning_rate)
    model, healing = heal(model, tokenizer, rows, arguments.text.name, arguments.rank, settings)
    finish(model, healing, before, arguments)


if __name__ == "__main__":
    parser = parser_of(main.__doc__, learning_rate=2e-3)
    parser.add_argument("--rank", type=int, default=64)
    main(parser.parse_args())
