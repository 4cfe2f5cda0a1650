"""What a benchmark runs: the paper's two scenarios, in any size."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import GenerationConfig, PreTrainedModel

from ..blocks.forward import logits_of, vocab_size_of
from ..errors import ConfigError


@dataclass(frozen=True)
class Scenario:
    """One thing that a model does while it is timed.

    Args:
        kind: `"prompt"` reads a prompt, without a cache; `"generation"` reads one and generates greedily.
        batch_size: Sequences at a time.
        prompt_length: Tokens in a prompt.
        new_tokens: Tokens that are generated for each sequence; 0 for a prompt alone.
        static_cache: Generate with a cache of fixed size.
        compile: Compile the model; generation then takes a cache of fixed size.

    Raises:
        ConfigError: If a number is not positive, or there is nothing to generate.

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
        """What is run, in words."""
        words = [f"{self.batch_size:,} x {self.prompt_length:,} tokens"]
        words += [f"{self.new_tokens:,} new ones each"] if self.new_tokens else ["no cache"]
        if self.static_cache or (self.compile and self.new_tokens):
            words.append("static cache")
        return ", ".join([*words, *(["compiled"] if self.compile else [])])

    @property
    def tokens(self) -> int:
        """Tokens that a run is counted by: the new ones, or those of the prompts."""
        return self.batch_size * (self.new_tokens or self.prompt_length)


def paper_scenarios(model: PreTrainedModel, batch_sizes: tuple[int, ...] = ()) -> tuple[Scenario, ...]:
    """The paper's scenarios; on a CPU smaller ones, which take seconds.

    Args:
        model: The model, whose device and longest text count.
        batch_sizes: Sequences generated at a time, a scenario for each; empty takes the paper's 64, 4 on a CPU.

    Returns:
        A prompt of 2048 tokens (256 on a CPU), or as many as the model can read, and prompts of 64 tokens with 128 new
        ones (32 with 16).

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, n_positions=128, vocab_size=40))
        >>> [scenario.protocol for scenario in paper_scenarios(model)]
        ['1 x 128 tokens, no cache', '4 x 32 tokens, 16 new ones each']
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
    """What is to be timed: one run of a scenario, on random tokens.

    Args:
        model: The model, in evaluation mode.
        scenario: The scenario.

    Returns:
        A function without arguments that runs it once.

    Raises:
        ConfigError: If generation is to be compiled on a device where transformers does not compile it.

    Example:
        ```python
        run = runner(model, Scenario("prompt", 1, 2048))
        run()
        ```
    """
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
        min_new_tokens=scenario.new_tokens,  # no sequence ends early, whatever it says
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
