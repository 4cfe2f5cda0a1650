"""The promises of the package, on every family: shortened == reloaded == skipped, with and without a cache."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from optimum_sleb import SLEBPruner
from optimum_sleb.blocks.forward import logits_of

from .families import FAMILIES, NUM_BLOCKS, random_ids, tiny_model

REMOVALS = [[2, 3], *(pytest.param(blocks, marks=pytest.mark.long) for blocks in ([0], [2], [NUM_BLOCKS - 1], [4, 1]))]


def skipped_logits(model: PreTrainedModel, removed: list[int], ids: torch.Tensor) -> torch.Tensor:
    """The obvious way: let each of these blocks compute, and throw its result away."""

    def hand_on_input(module, args, kwargs, output):
        hidden = args[0] if args else kwargs["hidden_states"]
        return hidden if isinstance(output, torch.Tensor) else (hidden, *output[1:])

    blocks = next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    hooks = [blocks[index].register_forward_hook(hand_on_input, with_kwargs=True) for index in removed]
    try:
        with torch.no_grad():
            return logits_of(model, ids)
    finally:
        for hook in hooks:
            hook.remove()


def greedy(model: PreTrainedModel, ids: torch.Tensor, use_cache: bool) -> torch.Tensor:
    # The same number of tokens in any case: a model that stops early would compare less.
    return model.generate(ids, max_new_tokens=12, min_new_tokens=12, do_sample=False, use_cache=use_cache)


@pytest.mark.parametrize("removed", REMOVALS, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_shortened_model_is_the_dense_one_with_blocks_skipped(
    family: str, removed: list[int], device: str, tmp_path: Path
) -> None:
    dense = tiny_model(family).to(device)
    ids = random_ids(2, 24).to(device)
    expected = skipped_logits(dense, removed, ids)

    pruner = SLEBPruner(dense)
    shortened = pruner.remove(removed)
    assert shortened is dense
    assert shortened.config.get_text_config().num_hidden_layers == NUM_BLOCKS - len(removed)
    with torch.no_grad():
        torch.testing.assert_close(logits_of(shortened, ids), expected)

    pruner.save_pretrained(tmp_path / "pruned")
    reloaded, loading = AutoModelForCausalLM.from_pretrained(tmp_path / "pruned", output_loading_info=True)
    reloaded = reloaded.to(device).eval()
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        torch.testing.assert_close(logits_of(reloaded, ids), expected)

    for model in (shortened, reloaded):
        assert greedy(model, ids, use_cache=True).equal(greedy(model, ids, use_cache=False))
