"""Heal a pruned model by letting it imitate its dense parent: the loss is the divergence of their predictions.

    python examples/distill_from_dense.py FOLDER OUTPUT --dense MODEL [--text FILE] [--test-text FILE] [--steps 150]

FOLDER is what `SLEBPruner.save_pretrained` or `optimum-cli sleb prune` wrote. Worth its time where the text to heal on
is little, or of another kind than the text that the dense model learned: what it says of every token teaches more than
the token alone.
"""

from pathlib import Path
from typing import Any

import torch.nn.functional as F
from datasets import Dataset
from heal_with_trainer import DEVICE, finish, parser_of, rows_of, training
from torch import Tensor, no_grad
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, Trainer, TrainingArguments

from optimum_sleb import HealingRecord, healing_record, perplexity
from optimum_sleb.calibration.texts import read_text_file


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


def main(
    folder: Path,
    output: Path,
    dense: str,
    text: Path,
    test_text: Path,
    steps: int,
    batch_size: int,
    length: int,
    learning_rate: float,
) -> None:
    """Load, measure, heal, measure again, save."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", device_map=DEVICE)
    parent = AutoModelForCausalLM.from_pretrained(dense, dtype="auto", device_map=DEVICE)
    before = perplexity(model, tokenizer, str(test_text), window_length=length)
    rows = rows_of(read_text_file(text, "text"), tokenizer, length)
    arguments = training(output.with_name(f"{output.name}-run"), steps, batch_size, learning_rate)
    healing = heal(model, parent, rows, text.name, arguments)
    finish(model, output, folder, healing, before, test_text)


if __name__ == "__main__":
    parser = parser_of(main.__doc__, learning_rate=2e-4)
    parser.add_argument("--dense", required=True, help="The dense model, on the Hub or in a folder.")
    main(**vars(parser.parse_args()))
