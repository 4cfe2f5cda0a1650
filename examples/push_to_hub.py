"""Make a model shallower, measure what it costs on text it was not chosen on, and push it with that evidence.

    python examples/push_to_hub.py MODEL FOLDER [--repo me/my-model] [--gguf-file NAME]

Without `--repo` nothing leaves this machine: the folder holds what would be pushed, card and picture included. The
token is the one of `hf auth login`, or of the environment variable HF_TOKEN.
"""

from argparse import ArgumentParser
from pathlib import Path

from optimum_sleb import SLEBConfig, SLEBPruner, perplexity
from optimum_sleb.hub.card_update import add_to_report_and_card, perplexity_record

DATA = Path(__file__).parent / "data"
CALIBRATION_TEXT = DATA / "wikitext2-valid-excerpt.txt"
TEST_TEXT = DATA / "wikitext2-test-excerpt.txt"
# Few and short windows, so that a laptop is done in minutes. The published ones are 128 of 2048 tokens.
RECIPE = SLEBConfig(sparsity=0.2, dataset=str(CALIBRATION_TEXT), window_length=256, max_windows=2, batch_size=2)
PROTOCOL = {"window_length": 1024, "max_windows": 4}


def main(model: str, folder: Path, repo: str | None, gguf_file: str | None) -> None:
    """Load, measure, prune, measure again, save, push."""
    source = {"gguf_file": gguf_file} if gguf_file else {}
    pruner = SLEBPruner.from_pretrained(model, dtype="bfloat16", **source)
    before = perplexity(pruner.model, pruner.tokenizer, str(TEST_TEXT), **PROTOCOL)
    pruner.prune(RECIPE)
    after = perplexity(pruner.model, pruner.tokenizer, str(TEST_TEXT), **PROTOCOL)
    pruner.save_pretrained(folder, overwrite=True)
    # Into the report and the card that are pushed, beside the perplexity of the calibration text.
    report = add_to_report_and_card(folder, [perplexity_record(pruned=after, dense=before)])
    print(report.summary())
    print(f"perplexity on {TEST_TEXT.name}: {before.perplexity:.2f} before, {after.perplexity:.2f} after")
    print(f"saved to {folder}")
    if repo is not None:
        print(f"pushed to {pruner.push_to_hub(repo)}")


if __name__ == "__main__":
    parser = ArgumentParser(description=main.__doc__)
    parser.add_argument("model", help="Model on the Hub or local folder.")
    parser.add_argument("folder", type=Path, help="Folder to write the pruned model to.")
    parser.add_argument("--repo", help="Repository on the Hub to push to.")
    parser.add_argument("--gguf-file", help="A GGUF file in the model's folder.")
    main(**vars(parser.parse_args()))
