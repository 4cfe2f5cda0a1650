"""Heal a pruned model: fine-tune all of it with transformers' Trainer, and save it with what came of it.

    python examples/heal_with_trainer.py FOLDER OUTPUT [--text FILE] [--test-text FILE] [--steps 150]

FOLDER is what `SLEBPruner.save_pretrained` or `optimum-cli sleb prune` wrote. Heal on text of the kind that the model
is for, and never on the text that it is tested on. The defaults fit a model of 135M on one GPU.
"""

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, Trainer, TrainingArguments

from optimum_sleb import HealingRecord, healing_record, perplexity, save_healed
from optimum_sleb.calibration.evaluation_texts import read_text_file
from optimum_sleb.evaluation.perplexity import Perplexity
from optimum_sleb.hub.card_update import add_to_report_and_card, perplexity_record
from optimum_sleb.hub.folder import check_output_folder

DATA = Path(__file__).parent / "data"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def rows_of(text: str, tokenizer: Any, length: int) -> Dataset:
    """The text as one, cut into rows of token ids. Here every token is learned; mask prompts with labels of -100."""
    ids = tokenizer(text, verbose=False).input_ids
    rows = [ids[start : start + length] for start in range(0, len(ids) - length + 1, length)]
    return Dataset.from_dict({"input_ids": rows, "labels": rows})


def training(folder: Path, steps: int, batch_size: int, learning_rate: float) -> dict[str, Any]:
    """Arguments of the training that all recipes share."""
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": batch_size,
        "learning_rate": learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": steps // 10,
        "bf16": DEVICE == "cuda",
        "use_cpu": DEVICE == "cpu",
        "logging_steps": max(1, steps // 10),
        "save_strategy": "no",
        "report_to": "none",
        "include_num_input_tokens_seen": "all",
    }


def heal(model: PreTrainedModel, rows: Dataset, name: str, arguments: dict[str, Any]) -> HealingRecord:
    """Train in place. Float32 weights, computed with in bfloat16 on a GPU: small updates would be rounded away."""
    trainer = Trainer(model.float(), TrainingArguments(**arguments), train_dataset=rows)
    trainer.train()
    return healing_record(trainer, "full fine-tuning", name)


def prepared(arguments: Namespace) -> tuple[PreTrainedModel, Any, Dataset, Perplexity]:
    """The pruned model, its tokenizer, the rows to heal on, and what the model measures before."""
    check_output_folder(arguments.output, arguments.overwrite)
    tokenizer = AutoTokenizer.from_pretrained(arguments.folder)
    model = AutoModelForCausalLM.from_pretrained(arguments.folder, dtype="auto", device_map=DEVICE)
    before = perplexity(model, tokenizer, str(arguments.test_text), window_length=arguments.length)
    return model, tokenizer, rows_of(read_text_file(arguments.text, "text"), tokenizer, arguments.length), before


def main(arguments: Namespace) -> None:
    """Load, measure, heal, measure again, save."""
    model, _, rows, before = prepared(arguments)
    run = arguments.output.with_name(f"{arguments.output.name}-run")
    settings = training(run, arguments.steps, arguments.batch_size, arguments.learning_rate)
    healing = heal(model, rows, arguments.text.name, settings)
    finish(model, healing, before, arguments)


def finish(model: PreTrainedModel, healing: HealingRecord, before: Perplexity, arguments: Namespace) -> None:
    """Save the healed model, test what was saved, and write that into its card."""
    output, test_text = arguments.output, arguments.test_text
    # In the precision of the pruned model, whose report and card go on; and `use_cache` is true again, which every
    # Trainer sets to false.
    save_healed(model, output, parent=arguments.folder, healing=healing, overwrite=arguments.overwrite)
    model = AutoModelForCausalLM.from_pretrained(output, dtype="auto", device_map=DEVICE)
    tokenizer = AutoTokenizer.from_pretrained(output)
    after = perplexity(model, tokenizer, str(test_text), window_length=before.window_length)
    report = add_to_report_and_card(output, [replace(perplexity_record(after), pruned=before.perplexity)])
    print(report.summary())
    print(f"perplexity on {test_text.name}: {before.perplexity:.2f} pruned, {after.perplexity:.2f} healed")
    print(f"saved to {output}")


def parser_of(text: str | None, learning_rate: float) -> ArgumentParser:
    """The command line of all recipes."""
    parser = ArgumentParser(description=text)
    parser.add_argument("folder", type=Path, help="Folder of the pruned model.")
    parser.add_argument("output", type=Path, help="Folder to write the healed model to.")
    parser.add_argument("--text", type=Path, default=DATA / "wikitext2-valid-excerpt.txt", help="Text to heal on.")
    parser.add_argument("--test-text", type=Path, default=DATA / "wikitext2-test-excerpt.txt", help="Text to test on.")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--length", type=int, default=512, help="Tokens in a row.")
    parser.add_argument("--learning-rate", type=float, default=learning_rate)
    parser.add_argument("--overwrite", action="store_true", help="Replace a model that is in OUTPUT.")
    return parser


if __name__ == "__main__":
    main(parser_of(main.__doc__, learning_rate=2e-4).parse_args())
