"""The runtimes that benchmarks/runtimes.py tries: each predicts after a text, and goes on from a prompt, greedily.

Every one runs on a single thread, in float32 where its format does not say otherwise, and imports its library when it
is made: each has a process of its own.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

LLAMA_CPP_TOP = 200  # so many log-probabilities llama.cpp gives for each token


class Engine(Protocol):
    """A model in a runtime, as large as its files."""

    num_bytes: int

    def log_probabilities(self, prompt: list[int], tokens: list[int]) -> list[dict[int, float]]:
        """For each of the tokens, the log-probabilities of what may stand in its place, given all before it."""

    def generate(self, prompt: list[int], num_tokens: int) -> list[int]:
        """The tokens that follow, each the likeliest."""


def measure(engine: Engine, reference: list[dict[str, Any]]) -> dict[str, Any]:
    """Compare with what transformers predicted: `next` on the same text, `greedy` each on its own text."""
    alike, errors, greedy, seconds = 0, [], 0, 0.0
    engine.generate(reference[0]["prompt"], 4)  # what is set up at the first call is not timed
    for case in reference:
        prompt, tokens = case["prompt"], case["tokens"]
        for row, token, expected in zip(
            engine.log_probabilities(prompt, tokens), tokens, case["log_probabilities"], strict=True
        ):
            alike += max(row, key=row.__getitem__) == token
            errors.append(abs(row.get(token, min(row.values())) - expected))
        began = time.perf_counter()
        own = engine.generate(prompt, len(tokens))
        seconds += time.perf_counter() - began
        greedy += next(
            (at for at, pair in enumerate(zip(own, tokens, strict=True)) if pair[0] != pair[1]), len(tokens)
        )
    count = sum(len(case["tokens"]) for case in reference)
    return {
        "tokens": count,
        "next": alike,
        "greedy": greedy,
        "mean_error": float(np.mean(errors)),
        "largest_error": float(np.max(errors)),
        "bytes": engine.num_bytes,
        "tokens_per_second": count / seconds,
    }


def reference_of(engine: Engine, prompts: list[list[int]], num_tokens: int) -> list[dict[str, Any]]:
    """What the others are compared with."""
    cases = []
    for prompt in prompts:
        tokens = engine.generate(prompt, num_tokens)
        rows = engine.log_probabilities(prompt, tokens)
        found = [row[token] for row, token in zip(rows, tokens, strict=True)]
        cases.append({"prompt": prompt, "tokens": tokens, "log_probabilities": found})
    return cases


def bytes_of(place: Path, *patterns: str) -> int:
    """The size of the files of weights."""
    return sum(file.stat().st_size for pattern in patterns for file in place.glob(pattern))


def _rows(logits: torch.Tensor, prompt: list[int]) -> list[dict[int, float]]:
    values = logits[len(prompt) - 1 : -1].float().log_softmax(-1)
    return [dict(enumerate(row)) for row in values.tolist()]


class Transformers:
    """A model of transformers, or one that behaves like it."""

    def __init__(self, model: Any, num_bytes: int) -> None:
        self.model, self.num_bytes = model.eval(), num_bytes

    @torch.no_grad()
    def log_probabilities(self, prompt: list[int], tokens: list[int]) -> list[dict[int, float]]:
        """See Engine."""
        return _rows(self.model(input_ids=torch.tensor([prompt + tokens])).logits[0], prompt)

    @torch.no_grad()
    def generate(self, prompt: list[int], num_tokens: int) -> list[int]:
        """See Engine."""
        found, inputs, cache = [], torch.tensor([prompt]), None
        for _ in range(num_tokens):
            output = self.model(input_ids=inputs, past_key_values=cache, use_cache=True)
            cache, inputs = output.past_key_values, output.logits[:, -1:].argmax(-1)
            found.append(int(inputs))
        return found


def _load(model: Path, **arguments: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, **arguments)


def transformers(model: Path, _reference: list[dict[str, Any]]) -> tuple[Engine, dict[str, Any]]:
    """The checkpoint as it is."""
    return Transformers(_load(model), bytes_of(model, "*.safetensors")), {}


def peft(model: Path, reference: list[dict[str, Any]]) -> tuple[Engine, dict[str, Any]]:
    """With a new LoRA adapter, which changes nothing yet; then with one that does, saved, loaded and merged."""
    from peft import LoraConfig, PeftModel, get_peft_model

    adapted = get_peft_model(_load(model), LoraConfig(r=8, target_modules="all-linear", init_lora_weights=False))
    inputs = torch.tensor([reference[0]["prompt"]])
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        changed = adapted(input_ids=inputs).logits
        adapted.save_pretrained(folder)
        size = bytes_of(Path(folder), "*.safetensors")
        again = PeftModel.from_pretrained(_load(model), folder)
        loaded = (again(input_ids=inputs).logits - changed).abs().max()
        merged = (again.merge_and_unload()(input_ids=inputs).logits - changed).abs().max()
        moved = (changed - _load(model)(input_ids=inputs).logits).abs().max()
    assert moved > 100 * max(loaded, merged), (moved, loaded, merged)
    new = get_peft_model(_load(model), LoraConfig(r=8, target_modules="all-linear"))
    told = {"adapter_moves": float(moved), "loaded_differs": float(loaded), "merged_differs": float(merged)}
    return Transformers(new, size), told


def trl(model: Path, reference: list[dict[str, Any]]) -> tuple[Engine, dict[str, Any]]:
    """After a step of SFT, saved and loaded again; compared with the same model before it was saved."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    tokenizer, trained = AutoTokenizer.from_pretrained(model), _load(model)
    before = {name: value.clone() for name, value in trained.named_parameters()}
    texts = [tokenizer.decode(case["prompt"] + case["tokens"]) for case in reference]
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {"max_steps": 1, "per_device_train_batch_size": len(texts), "learning_rate": 1e-5}
        arguments = SFTConfig(folder, **settings, report_to="none", save_strategy="no", use_cpu=True, bf16=False)
        data = Dataset.from_dict({"text": texts})
        trainer = SFTTrainer(trained, arguments, train_dataset=data, processing_class=tokenizer)
        first = trainer.train().training_loss
        still = [name for name, value in trained.named_parameters() if torch.equal(value, before[name])]
        assert not still, f"one step did not move {still}"
        trainer.save_model(folder)
        own = reference_of(Transformers(trained, 0), [case["prompt"] for case in reference], 32)
        reference[:] = own
        loaded = Transformers(_load(Path(folder)), bytes_of(Path(folder), "*.safetensors"))
        second = float(trainer.evaluate(trainer.train_dataset)["eval_loss"])
    assert second < first, "one step on these texts did not help with them"
    return loaded, {"loss_before": first, "loss_after": second}


class LlamaCpp:
    """llama.cpp, by the wheel xllamacpp."""

    def __init__(self, file: Path) -> None:
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        parameters.model.path, parameters.n_ctx = str(file), 512
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
        self.server, self.num_bytes = xllamacpp.Server(parameters), file.stat().st_size

    def _ask(self, prompt: list[int], num_tokens: int, top: int) -> list[dict[str, Any]]:
        answer = self.server.handle_completions(
            {"prompt": prompt, "max_tokens": num_tokens, "temperature": 0, "logprobs": top, "n_probs": top}
        )
        return answer["choices"][0]["logprobs"]["content"]

    def log_probabilities(self, prompt: list[int], tokens: list[int]) -> list[dict[int, float]]:
        """See Engine."""
        rows = []
        for count in range(len(tokens)):
            (found,) = self._ask(prompt + tokens[:count], 1, LLAMA_CPP_TOP)
            rows.append({one["id"]: one["logprob"] for one in found["top_logprobs"]})
        return rows

    def generate(self, prompt: list[int], num_tokens: int) -> list[int]:
        """See Engine."""
        return [one["id"] for one in self._ask(prompt, num_tokens, 1)]


def gguf(file: Path, _reference: list[dict[str, Any]]) -> tuple[Engine, dict[str, Any]]:
    """A GGUF file, whatever its type."""
    return LlamaCpp(file), {}


class _LogitsOnly(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids, use_cache=False).logits


class Onnx:
    """ONNX Runtime, without a cache: each token costs a pass over the whole text."""

    def __init__(self, model: Path) -> None:
        import onnxruntime

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            length = torch.export.Dim("length", min=2, max=2048)
            torch.onnx.export(
                _LogitsOnly(_load(model, attn_implementation="eager").eval()),
                (torch.ones(1, 9, dtype=torch.int64),),
                str(file),
                input_names=["input_ids"],
                output_names=["logits"],
                dynamic_shapes={"input_ids": {1: length}},
                dynamo=True,
                external_data=True,
            )
            self.num_bytes = bytes_of(Path(folder), "*")
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self.session = onnxruntime.InferenceSession(str(file), options)

    def _logits(self, tokens: list[int]) -> torch.Tensor:
        return torch.from_numpy(self.session.run(None, {"input_ids": np.array([tokens])})[0][0])

    def log_probabilities(self, prompt: list[int], tokens: list[int]) -> list[dict[int, float]]:
        """See Engine."""
        return _rows(self._logits(prompt + tokens), prompt)

    def generate(self, prompt: list[int], num_tokens: int) -> list[int]:
        """See Engine."""
        text = list(prompt)
        for _ in range(num_tokens):
            text.append(int(self._logits(text)[-1].argmax()))
        return text[len(prompt) :]


def onnx(model: Path, _reference: list[dict[str, Any]]) -> tuple[Engine, dict[str, Any]]:
    """torch.onnx.export, as it is."""
    return Onnx(model), {}


def quantised(config: Callable[[], Any]) -> Callable[[Path, list[dict[str, Any]]], tuple[Engine, dict[str, Any]]]:
    """What transformers quantises while it loads; saved, to see how large that is."""

    def make(model: Path, _reference: list[dict[str, Any]]) -> tuple[Engine, dict[str, Any]]:
        loaded = _load(model, quantization_config=config(), device_map="cpu")
        with tempfile.TemporaryDirectory() as folder:
            loaded.save_pretrained(folder)
            return Transformers(loaded, bytes_of(Path(folder), "*.safetensors", "*.bin")), {}

    return make


def _torchao(bits: int) -> Any:
    from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup
    from torchao.quantization.quant_primitives import MappingType
    from transformers import TorchAoConfig

    if bits == 8:
        return TorchAoConfig(Int8WeightOnlyConfig())
    # Int4WeightOnlyConfig, which packs two weights into a byte, needs a GPU.
    return TorchAoConfig(
        IntxWeightOnlyConfig(torch.int4, granularity=PerGroup(32), mapping_type=MappingType.ASYMMETRIC)
    )


def _bitsandbytes(**arguments: Any) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(**arguments)


ENGINES: dict[str, Callable[[Path, list[dict[str, Any]]], tuple[Engine, dict[str, Any]]]] = {
    "transformers": transformers,
    "transformers-oldest": transformers,
    "peft": peft,
    "trl": trl,
    "gguf-f32": gguf,
    "gguf-q4_k_m": gguf,
    "onnx": onnx,
    "torchao-int8": quantised(lambda: _torchao(8)),
    "torchao-int4": quantised(lambda: _torchao(4)),
    "bitsandbytes-int8": quantised(lambda: _bitsandbytes(load_in_8bit=True)),
    "bitsandbytes-nf4": quantised(
        lambda: _bitsandbytes(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    ),
}


def main(name: str, model: str, reference_file: str) -> None:
    """Print what one runtime gives, as the last line."""
    torch.set_num_threads(1)
    reference = json.loads(Path(reference_file).read_text(encoding="utf-8"))
    engine, told = ENGINES[name](Path(model), reference)
    print(json.dumps({**measure(engine, reference), **told}))


def llama_quantize(source: Path, target: Path, options: Sequence[str]) -> None:
    """Quantise a GGUF file to Q4_K_M, whole or not at all."""
    from ik_llama_cpp import find_quantize_bin

    fresh = target.with_suffix(".new")
    subprocess.run([find_quantize_bin(), *options, source, fresh, "Q4_K_M"], check=True)
    fresh.replace(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
