"""Write the tables of docs/runtimes.md from what benchmarks/runtimes.py measured."""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("runtimes.json")
PAGE = Path(__file__).parents[1] / "docs" / "runtimes.md"
FIRST, LAST = "<!-- figures: written by benchmarks/runtimes.py -->\n", "<!-- end of the figures -->\n"
# What the page and the cards call the engines of runtime_engines.py.
NAMES = {
    "transformers": ("transformers", "transformers {transformers}"),
    "transformers-oldest": ("transformers", "transformers {transformers, oldest}"),
    "peft": ("PEFT", "PEFT: a new LoRA adapter (the size is its own)"),
    "trl": ("TRL", "TRL: after a step of SFT, saved and loaded"),
    "gguf-f32": ("llama.cpp (GGUF)", "llama.cpp: GGUF, F32"),
    "gguf-q4_k_m": ("llama.cpp (GGUF)", "llama.cpp: GGUF, Q4_K_M"),
    "onnx": ("ONNX Runtime", "ONNX Runtime, without a cache"),
    "torchao-int8": ("torchao", "torchao: int8 weights"),
    "torchao-int4": ("torchao", "torchao: int4 weights, groups of 32"),
    "bitsandbytes-int8": ("bitsandbytes", "bitsandbytes: 8 bits"),
    "bitsandbytes-nf4": ("bitsandbytes", "bitsandbytes: 4 bits, NF4"),
}
COLUMNS = (
    *("", "next token as transformers", "greedy text as transformers", "mean difference", "largest"),
    *("MB", "tokens/s"),
)


def runtimes_of(model: dict[str, Any]) -> tuple[str, ...]:
    """The runtimes that a model went through with all that was tried, by the names that cards use."""
    missing = {runtime for key, (runtime, _) in NAMES.items() if key not in model["results"]}
    return tuple(dict.fromkeys(runtime for runtime, _ in NAMES.values() if runtime not in missing))


def figures(results: dict[str, Any]) -> str:
    """The part of the page that is measured."""
    made = results["made"]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    parts = [f"Measured on {made['date']}, on one thread of {made['device']}; {versions}."]
    for model in results["models"].values():
        parts.append(f"### {model['name']}, {len(model['removed'])} of {model['blocks']} blocks removed")
        parts += [_table(model["results"], made["versions"]), _training(model["results"])]
    return "\n\n".join(parts) + "\n"


def _table(found: dict[str, Any], versions: dict[str, str]) -> str:
    rows = [COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1))]
    for key, (_, name) in NAMES.items():
        if key in found:
            rows.append((name.format_map(versions), *_cells(found[key])))
    rows.append(("for scale: the dense model, in transformers", *_cells(found["dense"])))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cells(one: dict[str, Any]) -> tuple[str, ...]:
    shares = (f"{one[name]} of {one['tokens']}" for name in ("next", "greedy"))
    errors = (f"{one[name]:.2g}" for name in ("mean_error", "largest_error"))
    return (*shares, *errors, f"{one['bytes'] / 1e6:.1f}", f"{one['tokens_per_second']:.1f}")


def _training(found: dict[str, Any]) -> str:
    peft, trl = found["peft"], found["trl"]
    return (
        "PEFT: an adapter on all linear layers, filled with random numbers, moves the logits by up to "
        f"{peft['adapter_moves']:.2g}; saved and loaded it gives the same within {peft['loaded_differs']:.1g}, and "
        f"merged within {peft['merged_differs']:.1g}. TRL: one step on the three texts takes their loss from "
        f"{trl['loss_before']:.3f} to {trl['loss_after']:.3f} and moves every parameter."
    )


def filled(page: str, results: dict[str, Any]) -> str:
    """The page with these figures."""
    before, _, rest = page.partition(FIRST)
    _, _, after = rest.partition(LAST)
    return f"{before}{FIRST}\n{figures(results)}\n{LAST}{after}"


def write() -> None:
    """Bring the page up to date."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
