"""Which runtimes were proven to run pruned models of an architecture; a card names no others."""

from ..report.report import PruningReport

# What benchmarks/runtimes.json holds, by class of the model: tests/card/test_runtimes.py compares the two.
_ALL = ("transformers", "PEFT", "TRL", "llama.cpp (GGUF)", "ONNX Runtime", "torchao", "bitsandbytes")
PROVEN: dict[str, tuple[str, ...]] = {"LlamaForCausalLM": _ALL, "Qwen2ForCausalLM": _ALL}


def sentence_on_runtimes(report: PruningReport) -> str:
    """Return what a card says of runtimes: names where they were proven for such a checkpoint, and else none."""
    others = "any runtime that reads such a config"
    is_plain = not {"trust_remote_code", "quantization_config"} & report.loading.keys()
    proven = PROVEN.get(report.architecture, ()) if is_plain else ()
    if not proven:
        return f"{others.capitalize()} can load it."
    return f"Pruned models of this architecture were run with {', '.join(proven)}; {others} can load them too."
