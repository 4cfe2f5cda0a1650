"""AssistedGeneration generation: the shortened model as the draft of its dense model."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..blocks.forward import evaluating
from ..blocks.state import removing_hooks
from ..errors import ConfigError
from ..runtime.turns import one_at_a_time
from ..runtime.undo import undoing
from .timing import Timing, time_in_turns

PROMPTS = (
    "The capital of France is",
    "Water boils at a lower temperature on a mountain because",
    "def fibonacci(n):",
    "Once upon a time, in a village by the sea, there lived",
)


@dataclass(frozen=True)
class AssistedGeneration:
    """Result of assisted generation, against the dense model alone."""

    acceptance: float  # share of the draft's tokens that the dense model accepted
    # Share of tokens that are the same with and without the draft; in half precision near ties may differ.
    same_tokens: float
    num_tokens: int  # generated with the draft
    plain: Timing  # the dense model alone
    assisted: Timing

    @property
    def speedup(self) -> float:
        """Time of the dense model alone over the time with the draft; below 1 where the draft makes it slower."""
        return self.plain.median / self.assisted.median

    def summary(self) -> str:
        """Return the result as one sentence for a reader."""
        verdict = "" if self.speedup > 1 else ", so it does not pay here"
        before, after = (self.num_tokens / timing.median for timing in (self.plain, self.assisted))
        return (
            f"As a draft for the dense model, greedy, one text at a time: {self.acceptance:.0%} of its tokens were "
            f"accepted, {self.same_tokens:.1%} of all tokens are those of the dense model alone, and {before:,.1f} "
            f"tokens/s became {after:,.1f} ({self.speedup:.2f}x{verdict})."
        )


@one_at_a_time
def assisted_generation(
    draft: PreTrainedModel,
    dense: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    prompts: Sequence[str] = PROMPTS,
    new_tokens: int = 64,
    repeats: int = 3,
) -> AssistedGeneration:
    """Generate greedily with the dense model alone, and with the shortened model as its draft (`assistant_model`).

    `new_tokens` is the most per prompt; both ways are timed in turns. ConfigError if the vocabularies differ.
    """
    sizes = [model.config.get_text_config(decoder=True).vocab_size for model in (draft, dense)]
    if sizes[0] != sizes[1] or not prompts:
        raise ConfigError(
            f"A draft needs the vocabulary of its dense model and a text; got vocabularies of {sizes[0]} and "
            f"{sizes[1]}, and {len(prompts)} texts."
        )
    encoded = [tokenizer(prompt, return_tensors="pt").input_ids.to(dense.device) for prompt in prompts]
    config = GenerationConfig(max_new_tokens=new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id or 0)

    def generate(assistant: PreTrainedModel | None) -> list[Tensor]:
        more = {} if assistant is None else {"assistant_model": assistant}
        tokens = []
        for ids in encoded:
            mask = torch.ones_like(ids)
            whole = dense.generate(ids, attention_mask=mask, generation_config=copy.deepcopy(config), **more)
            tokens.append(whole[0, ids.shape[1] :])
        return tokens

    with _keeping_generation_config(draft), evaluating(draft), evaluating(dense):
        alone = generate(None)
        with _counting(draft) as proposed, _counting(dense) as checked:
            together = generate(draft)
        runs = [lambda: generate(None), lambda: generate(draft)]
        dense_alone, assisted = time_in_turns(runs, dense.device, repeats=repeats, warm_up=1)
    num_tokens = sum(map(len, together))
    # Each forward pass of the dense model yields one token of its own, plus the draft's tokens that it accepts.
    accepted = num_tokens - len(checked)
    same = sum(int((one[: len(other)] == other[: len(one)]).sum()) for one, other in zip(alone, together, strict=True))
    return AssistedGeneration(
        accepted / max(1, len(proposed)), same / sum(map(len, alone)), num_tokens, dense_alone, assisted
    )


@contextmanager
def _counting(model: nn.Module) -> Iterator[list[None]]:
    """Count the forward passes of a model: the list gets one entry for each."""
    calls: list[None] = []
    with removing_hooks() as hooks:
        hooks.append(model.register_forward_hook(lambda *_: calls.append(None)))
        yield calls


@contextmanager
def _keeping_generation_config(draft: PreTrainedModel) -> Iterator[None]:
    """Restore the draft's generation config, which `generate(assistant_model=...)` changes."""
    before = copy.deepcopy(draft.generation_config)
    with undoing(lambda: setattr(draft, "generation_config", before)):
        yield
