"""Run the README's first pruning command with the installed package, on a tiny model of random weights.

`make release-check` runs this in an environment that holds the wheel and nothing of the checkout:

python -I tests/release_check.py README.md
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import optimum_sleb

WORDS = [f"word{number}" for number in range(90)]
MODEL = "HuggingFaceTB/SmolLM2-135M"


def write_model(folder: Path) -> None:
    """Write a tiny model with its tokenizer, as a user would have it."""
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(["<unk>", *WORDS])}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 10}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS) + 1, **sizes)).save_pretrained(folder)


def main() -> None:
    """Prune, load what was written with plain transformers, and ask the command for its help."""
    assert "site-packages" in optimum_sleb.__file__, f"{optimum_sleb.__file__} is not the installed package"
    readme = Path(sys.argv[1]).read_text(encoding="utf-8")
    command = next(line for line in readme.splitlines() if line.startswith("optimum-cli sleb prune"))
    output = re.search(r"--output (\S+)", command)[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "dense")
        (folder / "text.txt").write_text(" ".join(WORDS[number * number % 89] for number in range(4000)))
        here = command.replace(MODEL, "dense") + " --dataset text.txt --window-length 32 --max-windows 24"
        program = Path(sys.executable).with_name("optimum-cli")
        subprocess.run([program, *here.split()[1:]], check=True, cwd=folder)
        model = AutoModelForCausalLM.from_pretrained(folder / output)
        assert model.config.num_hidden_layers == 8
        assert (folder / output / "README.md").is_file()
    print(f"optimum-sleb {optimum_sleb.__version__}: the README's command prunes, with the wheel alone.")


if __name__ == "__main__":
    main()
