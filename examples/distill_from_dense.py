"""Heal a pruned model by letting it imitate its dense parent: the loss is the divergence of their predictions.

    python examples/distill_from_dense.py FOLDER OUTPUT --dense MODEL [--text FILE] [--test-text FILE] [--steps 150]

FOLDER is what `SLEBPruner.save_pretrained` or `optimum-cli sleb prune` wrote. Worth its time where the text to heal on
is little, or of another kind than the text that the dense model learned: what it says of every token teaches more than
the token alone.
"""

from argparse import Namespace
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from datasets import Dataset
from heal_with_trainer import DEVICE, finish, parser_of, prepared, training
from torch import Tensor, no_grad
from transformers import AutoModelForCausalLM, PreTrainedModel, Trainer, TrainingArguments

from optimum_sleb import HealingRecord, healing_record


class DistillationTrainer(Trainer):
    """A Trainer whose loss is the Kullback-Leibler divergence from a dense model's predictions, per token."""

    def __init__(self, dense: PreTrainedModel, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.dense = dense.eval()
        # The loss is a mean over the batch: the Trainer is not to divide it among accumulated batches once more.
        self.model_accepts_loss_kwargs = False

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **more: Any) -> Any:
        """The loss of a batch of whole rows: they have one length, so that nothing is padding."""
        inputs.pop("labels", None)
        with no_grad():
            wanted: Tensor = self.dense(**inputs).logits.float().flatten(0, 1).log_softmax(-1)
        outputs = model(**inputs)
        given = outputs.logits.float().flatten(0, 1).log_softmax(-1)
        loss = F.kl_div(given, wanted, log_target=True, reduction="batchmean")
        return (loss, outputs) if return_outputs else loss


def heal(
    model: PreTrainedModel, dense: PreTrainedModel, rows: Dataset, name: str, arguments: dict[str, Any]
) -> HealingRecord:
    """Train in place, in float32 as full fine-tuning does."""
    trainer = DistillationTrainer(dense, model.float(), TrainingArguments(**arguments), train_dataset=rows)
    trainer.train()
    return healing_record(trainer, f"distillation from {Path(dense.name_or_path).name}", name)


def main(arguments: Namespace) -> None:
    """Load, measure, heal, measure again, save."""
    model, _, rows, before = prepared(arguments)
    dense = AutoModelForCausalLM.from_pretrained(arguments.dense, dtype="auto", device_map=DEVICE)
    run = arguments.output.with_name(f"{arguments.output.name}-run")
    settings = training(run, arguments.steps, arguments.batch_size, arguments.learning_rate)
    healing = heal(model, dense, rows, arguments.text.name, settings)
    finish(model, healing, before, arguments)


if __name__ == "__main__":
    parser = parser_of(main.__doc__, learning_rate=2e-4)
    parser.add_argument("--dense", required=True, help="The dense model, on the Hub or in a folder.")
    main(parser.parse_args())
