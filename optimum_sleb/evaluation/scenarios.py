"""Scenarios of a benchmark: the paper's two kinds, in any size."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import GenerationConfig, PreTrainedModel

from ..blocks.forward import logits_of, vocab_size_of
from ..errors import ConfigError
from ..models.positions import most_positions


@dataclass(frozen=True)
class Scenario:
    """A workload that a model is timed on.

    Args:
        kind: `"prompt"` runs one forward pass over a prompt, without a cache; `"generation"` also generates greedily.
        batch_size: Sequences in one batch.
        prompt_length: Tokens in a prompt.
        new_tokens: Tokens generated for each sequence; 0 for `"prompt"`.
        static_cache: Generate with a cache of fixed size.
        compile: Compile the model (`torch.compile`); generation then uses a cache of fixed size.

    Raises:
        ConfigError: If `batch_size` or `prompt_length` is below 1, or `new_tokens` does not fit `kind`.

    Example:
        >>> Scenario("generation", 64, 64, 128).protocol
        '64 x 64 tokens, 128 new ones each'
    """

    kind: Literal["prompt", "generation"]
    batch_size: int
    prompt_length: int
    new_tokens: int = 0
    static_cache: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "prompt_length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if (self.kind == "generation") != (self.new_tokens > 0):
            raise ConfigError(
                f"Generation needs at least one new token, and a prompt alone has none; got new_tokens="
                f"{self.new_tokens} for {self.kind!r}."
            )

    @property
    def protocol(self) -> str:
        """Sizes and options of the scenario, in words."""
        words = [f"{self.batch_size:,} x {self.prompt_length:,} tokens"]
        words += [f"{self.new_tokens:,} new ones each"] if self.new_tokens else ["no cache"]
        if self.static_cache or (self.compile and self.new_tokens):
            words.append("static cache")
        return ", ".join([*words, *(["compiled"] if self.compile else [])])

    @property
    def tokens(self) -> int:
        """Tokens of one run that a rate in tokens per second counts: the new ones, or those of the prompts."""
        return self.batch_size * (self.new_tokens or self.prompt_length)


def paper_scenarios(model: PreTrainedModel, batch_sizes: tuple[int, ...] = ()) -> tuple[Scenario, ...]:
    """Return the paper's scenarios, or smaller ones on a CPU; the prompt is at most as long as the model can read.

    `batch_sizes` gives one generation scenario each; empty takes the paper's 64 (4 on a CPU).
    """
    small = model.device.type == "cpu"
    prompt, new_tokens = (32, 16) if small else (64, 128)
    most = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    long = 256 if small else 2048
    return (
        Scenario("prompt", 1, min(long, most or long)),
        *(Scenario("generation", size, prompt, new_tokens) for size in batch_sizes or (4 if small else 64,)),
    )


def runner(model: PreTrainedModel, scenario: Scenario) -> Callable[[], object]:
    """Return a function that runs a scenario once, on random tokens; the model must be in evaluation mode."""
    most, tokens = most_positions(model), scenario.prompt_length + scenario.new_tokens
    if most is not None and tokens > most:
        raise ConfigError(
            f"{scenario.protocol}: {tokens:,} positions are more than the {most:,} of {type(model).__name__}; take "
            "fewer tokens (--prompt, --short-prompt, --new-tokens)."
        )
    generator = torch.Generator().manual_seed(0)
    shape = (scenario.batch_size, scenario.prompt_length)
    ids = torch.randint(vocab_size_of(model), shape, generator=generator).to(model.device)
    if scenario.kind == "prompt":
        forward = torch.compile(logits_of) if scenario.compile else logits_of
        return lambda: forward(model, ids)
    if scenario.compile and model.device.type == "cpu":
        raise ConfigError("transformers compiles generation on a GPU only; leave compile (--compile) out.")
    config = GenerationConfig(
        max_new_tokens=scenario.new_tokens,
        min_new_tokens=scenario.new_tokens,  # an EOS token does not end a sequence early
        do_sample=False,
        cache_implementation="static" if scenario.static_cache or scenario.compile else None,
        disable_compile=not scenario.compile,
        pad_token_id=0,
    )
    mask = torch.ones_like(ids)

    def generate() -> object:
        tokens = model.generate(ids, attention_mask=mask, generation_config=config)
        assert tokens.shape[1] == scenario.prompt_length + scenario.new_tokens
        return tokens

    return generate
