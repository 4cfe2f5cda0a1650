"""Heal a pruned model: fine-tune all of it, and save it with what came of it.

    python examples/heal_with_trainer.py FOLDER OUTPUT [--text FILE] [--test-text FILE] [--steps 150]

FOLDER is what `SLEBPruner.save_pretrained` or `optimum-cli sleb prune` wrote. Heal on text of the kind that the model
is for, and never on the text that it is tested on. The defaults fit a model of 135M on one GPU.
"""

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from optimum_sleb import heal, perplexity, save_healed
from optimum_sleb.hub.card_update import add_to_report_and_card, perplexity_record
from optimum_sleb.hub.folder import check_output_folder

DATA = Path(__file__).parent / "data"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def load(folder: Path) -> tuple[Any, Any]:
    """A model in its own precision, and its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", device_map=DEVICE)
    return model, AutoTokenizer.from_pretrained(folder)


def heal_and_measure(arguments: Namespace, method: str, **settings: Any) -> None:
    """Load, measure, heal, save, measure what was saved, and write that into its card."""
    output, test_text, length = arguments.output, str(arguments.test_text), arguments.length
    check_output_folder(output, arguments.overwrite)
    model, tokenizer = load(arguments.folder)
    before = perplexity(model, tokenizer, test_text, window_length=length)
    training = {"steps": arguments.steps, "batch_size": arguments.batch_size, "window_length": length}
    heal(model, tokenizer, method, data=arguments.text, learning_rate=arguments.learning_rate, **training, **settings)
    save_healed(model, output, overwrite=arguments.overwrite)
    after = perplexity(*load(output), test_text, window_length=length)
    report = add_to_report_and_card(output, [replace(perplexity_record(after), pruned=before.perplexity)])
    print(report.summary())
    print(f"perplexity on {test_text}: {before.perplexity:.2f} pruned, {after.perplexity:.2f} healed")
    print(f"saved to {output}")


def parser_of(text: str | None) -> ArgumentParser:
    """The command line of all recipes."""
    parser = ArgumentParser(description=text)
    parser.add_argument("folder", type=Path, help="Folder of the pruned model.")
    parser.add_argument("output", type=Path, help="Folder to write the healed model to.")
    parser.add_argument("--text", type=Path, default=DATA / "wikitext2-valid-excerpt.txt", help="Text to heal on.")
    parser.add_argument("--test-text", type=Path, default=DATA / "wikitext2-test-excerpt.txt", help="Text to test on.")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--length", type=int, default=512, help="Tokens in a row.")
    parser.add_argument("--learning-rate", type=float, help="Its highest value (default: by method and size).")
    parser.add_argument("--overwrite", action="store_true", help="Replace a model that is in OUTPUT.")
    return parser


if __name__ == "__main__":
    heal_and_measure(parser_of(__doc__).parse_args(), "full")
