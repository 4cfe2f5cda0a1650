"""May this block go? A shortened model must compute what the dense model computes with its blocks skipped, so a
dependence on depth, or on a config field without a rule, is found before the search starts."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from transformers import PreTrainedModel

from ..errors import ConfigError, UnsupportedModelError
from .comparison import Comparison, Inventory
from .folding import find_fold
from .forward import evaluating, logits_of, message_or_raise, same_logits
from .offload import loading_hooks, offloaded_like
from .rules import num_image_blocks
from .shortening import config_changes
from .stack import DecoderStack, probe_ids
from .surgery import build_shortened, copy_device_hooks, differing_attributes, fill, kept_module_names, kept_state


def reason_not_removable(
    model: PreTrainedModel,
    stack: DecoderStack,
    removed: Collection[int],
    *,
    run: bool = True,  # without, the logits are not compared, which is many times faster
    comparison: Comparison | None = None,  # of this model; kept for several sets of blocks, it saves most of the time
    stored_dtype: torch.dtype | None = None,  # of the weights, where the model computes in another for a while
) -> str | None:
    """Return why these blocks cannot be removed together, as the end of a sentence, or None where they can.

    The shortened model is built anew from its edited config, and compared with what is left of the dense model: names
    and shapes of weights, plain attributes, logits of a few tokens.
    """
    not_run = sorted(set(removed) - set(stack.forms))
    if not_run:
        return f"plain text does not run block {not_run[0]}, so its removal cannot be measured"
    if any(index < num_image_blocks(model.config) for index in removed):
        return f"image features enter behind the first {num_image_blocks(model.config)} blocks, by number"
    kept = [index for index in range(len(stack)) if index not in removed]
    if not kept:
        return "no block would be left"
    comparison = comparison or Comparison(model, stack, stored_dtype)
    try:
        template = (
            Inventory(build_shortened(model, stack, kept, stored_dtype=stored_dtype))
            if run
            else comparison.template(kept)
        )
    except UnsupportedModelError as error:
        return str(error)
    reason = comparison.difference_in_weights(template, kept)
    if reason is None and removed:
        reason = comparison.difference_in_constants(template, kept)
    if reason is None and run:
        reason = _difference_in_logits(model, template.model, stack, kept)
    if reason is None and not removed:
        # Is the model what its config says? Only checked now, as some families change their attributes when they run.
        reason = comparison.difference_from_itself(Inventory(template.model))
    return reason


def removable_blocks(
    model: PreTrainedModel, stack: DecoderStack, candidates: Sequence[int]
) -> tuple[list[int], dict[int, str]]:
    """Return the candidates that can each be removed on their own, and the reason for each of the others."""
    name = type(model).__name__
    if reason_not_removable(model, stack, ()) is not None:
        raise UnsupportedModelError(
            f"This {name} does not compute what it would after being saved and loaded again: it was changed in memory "
            "(hooks, buffers cast by .to(), ...). Save it, load it in the right dtype, prune that."
        )
    comparison = Comparison(model, stack)
    reasons = {
        block: reason_not_removable(model, stack, {block}, run=False, comparison=comparison) for block in candidates
    }
    passed = [block for block in candidates if reasons[block] is None]
    # Run the shortened model for three candidates only; where one of them fails, run it for all.
    sample = {*passed[:1], *passed[len(passed) // 2 :][:1], *passed[-1:]}
    of_sample = {block: reason_not_removable(model, stack, {block}, comparison=comparison) for block in sample}
    if any(of_sample.values()):
        reasons |= {block: reason_not_removable(model, stack, {block}, comparison=comparison) for block in passed}
    barred = {block: reason for block, reason in reasons.items() if reason is not None}
    if len(barred) == len(candidates):
        first = min(barred)
        raise UnsupportedModelError(f"Blocks of {name} cannot be removed: without block {first}, {barred[first]}.")
    return [block for block in candidates if block not in barred], barred


@dataclass(frozen=True)
class Removability:
    """The blocks of a model that can each be removed on their own, by their numbers in the dense model."""

    architecture: str  # class of the model
    num_blocks: int
    removable: tuple[int, ...]
    barred: dict[int, str]  # the other blocks, with the reason
    example: int  # the block whose removal `config_changes` shows
    config_changes: dict[str, tuple[Any, Any]]  # config fields that change, with values before and after

    @classmethod
    def of(cls, model: PreTrainedModel, stack: DecoderStack, dense_numbers: Sequence[int]) -> Self:
        """Rebuild the model without each of its blocks; raise UnsupportedModelError if none can be removed."""
        removable, barred = removable_blocks(model, stack, range(len(stack)))
        example = removable[len(removable) // 2]
        kept = [block for block in range(len(stack)) if block != example]
        return cls(
            architecture=type(model).__name__,
            num_blocks=len(stack),
            removable=tuple(dense_numbers[block] for block in removable),
            barred={dense_numbers[block]: reason for block, reason in barred.items()},
            example=dense_numbers[example],
            config_changes=config_changes(model.config, kept),
        )

    def summary(self) -> str:
        """Return the result as lines of text, without a final line break."""
        lines = [f"{self.architecture}: {len(self.removable)} of {self.num_blocks} blocks can be removed"]
        lines += [f"  not block {block}: {reason}" for block, reason in self.barred.items()]
        lines.append(f"without block {self.example} the config changes:")
        lines += [f"  {field}: {_short(old)} -> {_short(new)}" for field, (old, new) in self.config_changes.items()]
        return "\n".join(lines)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]} ... ({len(value)} entries)"


def check_removal(
    model: PreTrainedModel, stack: DecoderStack, dense_numbers: Sequence[int], blocks: Sequence[int]
) -> None:
    """Raise ConfigError or UnsupportedModelError if the given blocks of the dense model cannot all be removed."""
    check_block_numbers(dense_numbers, blocks)
    reason = reason_not_removable(model, stack, {dense_numbers.index(block) for block in blocks})
    if reason is not None:
        raise UnsupportedModelError(f"Blocks {list(blocks)} of {type(model).__name__} cannot be removed: {reason}.")


def check_block_numbers(dense_numbers: Sequence[int], blocks: Sequence[int]) -> None:
    """Raise ConfigError unless the given blocks are some of a model's, each named once, and not all."""
    for position, block in enumerate(blocks):
        if block not in dense_numbers or block in blocks[:position]:
            raise ConfigError(
                f"Block {block} cannot be removed (again); name each one once, of the blocks {list(dense_numbers)}."
            )
    if not 0 < len(blocks) < len(dense_numbers):
        most = len(dense_numbers) - 1
        raise ConfigError(f"Between 1 and {most} blocks can be removed; got {len(blocks)}; name so many.")


def _difference_in_logits(
    model: PreTrainedModel, template: PreTrainedModel, stack: DecoderStack, kept: Sequence[int]
) -> str | None:
    """Compare the logits of the rebuilt model with those of the dense model with the blocks skipped."""
    if stack.loader is not None:
        stack.loader.release_all()  # the shortened model shares the weights in host memory
    fill(template, model, kept_state(model, stack, kept, template))
    for path, attribute, old, new in differing_attributes(model, template, kept_module_names(model, stack.path, kept)):
        fold = find_fold(template.get_submodule(path), attribute)
        if fold is not None:
            fold(template.get_submodule(path), old, new)
    copy_device_hooks(template, model, stack, kept)
    ids = probe_ids(model)
    try:
        with evaluating(model), stack.skipping(set(range(len(stack))) - set(kept)), loading_hooks(stack):
            expected = logits_of(model, ids)
        with offloaded_like(template, stack):
            with evaluating(template):
                logits = logits_of(template, ids)
            failure = cache_failure(template)
    except Exception as error:  # from a family's own code, which does not allow this layout
        return f"the remaining blocks do not run ({message_or_raise(error)})"
    if not same_logits(logits, expected):
        return "a model reloaded from its config would compute something else, because blocks depend on their position"
    with loading_hooks(stack):
        return None if failure is None or cache_failure(model) is not None else failure


def cache_failure(model: PreTrainedModel) -> str | None:
    """Return what is wrong with the logits of generation with a cache, as the end of a sentence, or None."""
    if not model.can_generate():
        return None
    ids = probe_ids(model)
    prompt, following = ids[:, :-3], ids[0, -3:].tolist()
    logits = []  # of the same three prescribed tokens, generated with a cache and without
    try:
        with evaluating(model):
            for use_cache in (True, False):
                output = model.generate(
                    prompt,
                    max_new_tokens=len(following),
                    do_sample=False,
                    use_cache=use_cache,
                    output_logits=True,
                    return_dict_in_generate=True,
                    prefix_allowed_tokens_fn=lambda _, tokens: [following[len(tokens) - prompt.shape[1]]],
                )
                logits.append(torch.stack(output.logits))
    except Exception as error:  # from a family's own code, which does not allow this layout
        return f"generation with a cache fails ({message_or_raise(error)})"
    # With a cache other kernels run, so rounding differs; a wrong cache causes much larger differences.
    cached, uncached = (stacked.float() for stacked in logits)
    tolerance = 1e-3 if model.dtype in (torch.float32, torch.float64) else 5e-2
    agree = bool((cached - uncached).abs().max() <= tolerance * uncached.abs().max())
    return None if agree else "generation with a cache gives other logits than without"
