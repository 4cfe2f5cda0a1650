"""The gates: a shortened model must be exactly the dense model with blocks skipped, or it is refused.

Before a search, every candidate's removal is tried on the config alone: the shortened model is built without weights
and compared with what would be left (names, shapes, plain attributes). A few removals are also run: the shortened
model, sharing the dense model's weights, must give the logits of the dense model with the blocks skipped. So what
depends on a block's depth, or on a config field that no one told how to edit, is found before an hour is spent on it.
"""

import copy
from collections.abc import Collection, Sequence

import torch
from accelerate import init_empty_weights
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from ..errors import UnsupportedModelError, VerificationError
from .forward import logits_of, measuring, vocab_size_of
from .stack import DecoderStack, probe_ids
from .surgery import cut_out, differing_attributes, shorten_config


def check_causal_lm(model: PreTrainedModel) -> None:
    """Make sure that a model predicts the next token from the tokens before it, and from nothing else.

    Args:
        model: The model. It runs twice on a few tokens.

    Raises:
        UnsupportedModelError: If it gives no logits over its vocabulary, or looks ahead.

    Example:
        ```python
        check_causal_lm(model)
        ```
    """
    ids = probe_ids(model)
    changed = ids.clone()
    changed[0, -1] = (ids[0, -1] + 1) % vocab_size_of(model)
    name = type(model).__name__
    with measuring(model):
        try:
            logits, other = logits_of(model, ids), logits_of(model, changed)
        except (AttributeError, TypeError, ValueError) as error:
            raise UnsupportedModelError(
                f"{name} cannot be run on token ids alone ({error}), so it is not a causal language model; load the "
                "model with AutoModelForCausalLM."
            ) from error
    if not isinstance(logits, Tensor) or logits.shape[:2] != ids.shape or logits.shape[-1] < vocab_size_of(model):
        raise UnsupportedModelError(
            f"{name} gives no logits over its vocabulary for every token, so it is not a causal language model; load "
            "the model with AutoModelForCausalLM."
        )
    if not torch.allclose(logits[:, :-1].float(), other[:, :-1].float(), rtol=1e-3, atol=1e-3):
        raise UnsupportedModelError(
            f"{name} lets a token's logits depend on later tokens, so it is not a causal language model; if it is a "
            "BERT-like model, load it with is_decoder=True."
        )


def build_shortened(model: PreTrainedModel, kept: Sequence[int]) -> PreTrainedModel:
    """Build the shortened model anew from its edited config, without weights.

    Args:
        model: The model with all its blocks.
        kept: Indices of the blocks that stay, ascending.

    Returns:
        A model whose parameters are on the meta device and whose buffers are real.

    Raises:
        UnsupportedModelError: If the edited config is not accepted.

    Example:
        ```python
        template = build_shortened(model, kept=[0, 1, 3])
        ```
    """
    with init_empty_weights(include_buffers=False):
        return _from_config(model, _shortened_config(model, kept))


def check_candidates(model: PreTrainedModel, stack: DecoderStack, candidates: Sequence[int]) -> None:
    """Make sure that the candidates of a search can be removed, before it starts.

    Args:
        model: The model with all its blocks.
        stack: Its decoder blocks.
        candidates: Indices of the blocks that the search may remove, ascending.

    Raises:
        UnsupportedModelError: If removing one of them would not give the model that the search measures.

    Example:
        ```python
        check_candidates(model, stack, range(1, len(stack) - 1))
        ```
    """
    if not _matches_when_skipped(model, stack, set()):
        raise UnsupportedModelError(
            f"This {type(model).__name__} does not compute what it would after being saved and loaded again: it was "
            "changed in memory (hooks, buffers cast by .to(), ...). Save it, load it in the right dtype, prune that."
        )
    for candidate in candidates:
        _check_structure(model, stack, [index for index in range(len(stack)) if index != candidate])
    for removed in ({candidates[0]}, {candidates[-1]}, set(candidates[::3])):
        if not _matches_when_skipped(model, stack, removed):
            raise UnsupportedModelError(
                f"Blocks of {type(model).__name__} cannot be removed: without {sorted(removed)} a model reloaded from "
                "its config would compute something else, because what its blocks compute depends on their position."
            )


def take_out(model: PreTrainedModel, stack: DecoderStack, removed: Collection[int]) -> None:
    """Take blocks out of a model, in place, and make sure that it computes what it did with these blocks skipped.

    Args:
        model: The model.
        stack: Its decoder blocks; the list gets shorter.
        removed: Indices of the blocks that go.

    Raises:
        VerificationError: If the shortened model computes something else.

    Example:
        ```python
        take_out(model, stack, removed=[5, 4, 26])
        ```
    """
    kept = [index for index in range(len(stack)) if index not in set(removed)]
    ids = probe_ids(model)
    with measuring(model), stack.without(set(removed)):
        expected = logits_of(model, ids)
    cut_out(model, stack, kept, template=build_shortened(model, kept))
    with measuring(model):
        logits = logits_of(model, ids)
    if not same_logits(logits, expected):
        raise VerificationError(
            f"The shortened {type(model).__name__} does not compute what was measured with its blocks skipped; do not "
            "use it, and please report this architecture."
        )


def same_logits(logits: Tensor, expected: Tensor) -> bool:
    """Whether two sets of logits agree up to the rounding of their precision.

    Args:
        logits: Logits.
        expected: Logits of the same shape, possibly on another device.

    Returns:
        Whether they agree, by the tolerances of `torch.testing.assert_close`.

    Example:
        >>> same_logits(torch.ones(2), torch.ones(2) + 1e-7)
        True
    """
    try:
        torch.testing.assert_close(logits, expected.to(logits.device), equal_nan=True)
    except AssertionError:
        return False
    return True


def _check_structure(model: PreTrainedModel, stack: DecoderStack, kept: Sequence[int]) -> None:
    with torch.device("meta"):
        fresh = _from_config(model, _shortened_config(model, kept))
    removed = sorted(set(range(len(stack))) - set(kept))
    refusal = f"Blocks of {type(model).__name__} cannot be removed: without block {', '.join(map(str, removed))} "
    ours = {name: tensor.shape for name, tensor in _kept_state(model, stack, kept).items()}
    theirs = {name: tensor.shape for name, tensor in fresh.state_dict().items()}
    if ours != theirs:
        odd = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        raise UnsupportedModelError(
            f"{refusal}its config would call for other weights ({len(odd)} differ, the first is {odd[0]}), because a "
            "config field speaks of blocks by their position."
        )
    # The dense model's blocks, in the order in which they would remain.
    left = torch.nn.ModuleList([stack.blocks[index] for index in kept])
    for name, mine, other in differing_attributes(left, fresh.get_submodule(stack.path)):
        if type(other) is not int:
            raise UnsupportedModelError(
                f"{refusal}the remaining blocks would change, because they depend on their position: {name} would be "
                f"{other!r} instead of {mine!r}."
            )


def _matches_when_skipped(model: PreTrainedModel, stack: DecoderStack, removed: set[int]) -> bool:
    """Whether the model rebuilt from its shortened config computes what the model does with the blocks skipped."""
    kept = [index for index in range(len(stack)) if index not in removed]
    fresh = build_shortened(model, kept)
    fresh.load_state_dict(_kept_state(model, stack, kept), assign=True)
    for module in fresh.modules():
        for name, buffer in module._buffers.items():
            module._buffers[name] = buffer if buffer is None else buffer.to(model.device)
    ids = probe_ids(model)
    with measuring(model), stack.without(removed):
        expected = logits_of(model, ids)
    with measuring(fresh):
        return same_logits(logits_of(fresh, ids), expected)


def _shortened_config(model: PreTrainedModel, kept: Sequence[int]) -> PreTrainedConfig:
    config = copy.deepcopy(model.config)
    try:
        shorten_config(config, kept)
        config.validate()
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise UnsupportedModelError(
            f"Blocks of {type(model).__name__} cannot be removed: its config does not allow it ({error})."
        ) from error
    return config


def _from_config(model: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    with no_init_weights():
        return type(model)._from_config(config, dtype=model.dtype)


def _kept_state(model: PreTrainedModel, stack: DecoderStack, kept: Sequence[int]) -> dict[str, Tensor]:
    """The model's tensors without those of the removed blocks, under the names they would have. Nothing is copied."""
    state = {}
    new_index = {old: new for new, old in enumerate(kept)}
    for name, tensor in model.state_dict().items():
        if name.startswith(f"{stack.path}."):
            index, _, rest = name.removeprefix(f"{stack.path}.").partition(".")
            if int(index) not in new_index:
                continue
            name = f"{stack.path}.{new_index[int(index)]}.{rest}"
        state[name] = tensor
    return state
