"""Experiments on a few tokens: what a model computes, and whether two such results agree."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import UnsupportedModelError
from .forward import logits_of, measuring, reason_of, vocab_size_of
from .packed import packed_modules
from .shortening import text_config_of
from .stack import probe_ids


def check_causal_lm(model: PreTrainedModel) -> None:
    """Raise UnsupportedModelError unless a model predicts each next token from earlier tokens alone."""
    if vars(text_config_of(model.config)).get("rescale_every"):
        raise UnsupportedModelError(
            f"{type(model).__name__} rescales the weights of its blocks, by their number, while it runs; load it with "
            "rescale_every=0."
        )
    ids = probe_ids(model)
    changed = ids.clone()
    changed[0, -1] = (ids[0, -1] + 1) % vocab_size_of(model)
    name = type(model).__name__
    with measuring(model):
        versions = {path: parameter._version for path, parameter in model.named_parameters()}
        try:
            logits, other = logits_of(model, ids), logits_of(model, changed)
        except (AttributeError, TypeError, ValueError) as error:
            raise UnsupportedModelError(
                f"{name} cannot be run on token ids alone ({error}), so it is not a causal language model; load the "
                "model with AutoModelForCausalLM."
            ) from error
        changed_weights = [path for path, weight in model.named_parameters() if weight._version != versions[path]]
    if changed_weights:
        raise UnsupportedModelError(
            f"{name} changes its weights while it runs (the first is {changed_weights[0]}), so what it would save is "
            "not what it computes with; switch that off in its config."
        )
    if not isinstance(logits, Tensor) or logits.shape[:2] != ids.shape or logits.shape[-1] < vocab_size_of(model):
        raise UnsupportedModelError(
            f"{name} gives no logits over its vocabulary for every token, so it is not a causal language model; load "
            "the model with AutoModelForCausalLM."
        )
    # Minus infinity is allowed, because it can forbid a token.
    if (logits.isnan() | logits.isposinf() | other.isnan() | other.isposinf()).any():
        remedy = "check its weights"
        if model.dtype == torch.float16:
            remedy = "float16 does not hold its hidden states, so load it with dtype='bfloat16' or 'float32'"
        raise UnsupportedModelError(f"{name} gives logits that are NaN or infinite for a few tokens; {remedy}.")
    tolerance = _share_of_rounding(model) * float(logits[logits.isfinite()].abs().max())
    if not torch.allclose(logits[:, :-1].float(), other[:, :-1].float(), rtol=1e-3, atol=tolerance):
        raise UnsupportedModelError(
            f"{name} lets a token's logits depend on later tokens, so it is not a causal language model; if it is a "
            "BERT-like model, load it with is_decoder=True."
        )


def _share_of_rounding(model: PreTrainedModel) -> float:
    """Return the change of earlier logits, as a share of the largest, that is still taken for rounding."""
    # In tiny BERT-like models, looking ahead at one token changes logits by 0.04 of the largest or more.
    if packed_modules(model):
        return 5e-2  # eight-bit kernels scale the activations of all tokens together
    return 1e-3 if model.dtype in (torch.float32, torch.float64) else 2e-2


def check_saving_changes_nothing(model: PreTrainedModel) -> None:
    """Raise UnsupportedModelError if a quantised model computes something else after `state_dict()`."""
    if not packed_modules(model):
        return
    # On some CPUs bitsandbytes repacks weights for its kernels and packs them back for saving, which is not exact for
    # weights that were quantised twice.
    ids = probe_ids(model)
    with measuring(model):
        before = logits_of(model, ids)
        model.state_dict()
        after = logits_of(model, ids)
    if not same_logits(after, before):
        raise UnsupportedModelError(
            f"The quantised weights of {type(model).__name__} change when they are saved from this device; load it on "
            "a GPU, without double quantisation, or unquantised."
        )


def same_logits(logits: Tensor, expected: Tensor) -> bool:
    """Tell whether two sets of logits agree up to the rounding of their precision, also across devices."""
    try:
        torch.testing.assert_close(logits, expected.to(logits.device), equal_nan=True)
    except AssertionError:
        return False
    return True


def cache_trouble(model: PreTrainedModel) -> str | None:
    """Return what is wrong with the logits of generation with a cache, as the end of a sentence, or None."""
    if not model.can_generate():
        return None
    ids = probe_ids(model)
    prompt, rest = ids[:, :-3], ids[0, -3:].tolist()
    logits = []  # of the same three prescribed tokens, generated with a cache and without
    try:
        with measuring(model):
            for use_cache in (True, False):
                output = model.generate(
                    prompt,
                    max_new_tokens=len(rest),
                    do_sample=False,
                    use_cache=use_cache,
                    output_logits=True,
                    return_dict_in_generate=True,
                    prefix_allowed_tokens_fn=lambda _, tokens: [rest[len(tokens) - prompt.shape[1]]],
                )
                logits.append(torch.stack(output.logits))
    except Exception as error:  # from a family's own code, which does not allow this layout
        return f"generation with a cache fails ({reason_of(error)})"
    # With a cache other kernels run, so rounding differs; a wrong cache causes much larger differences.
    cached, plain = (stacked.float() for stacked in logits)
    tolerance = 1e-3 if model.dtype in (torch.float32, torch.float64) else 5e-2
    agree = bool((cached - plain).abs().max() <= tolerance * plain.abs().max())
    return None if agree else "generation with a cache gives other logits than without"
