"""The promises on models, block subsets and recipes that nobody chose.

The suite tries the same examples every time. To try others, and more: `FUZZ_EXAMPLES=1000 pytest tests/test_fuzz.py`.
"""

import os
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, PreTrainedModel

from optimum_sleb import SLEBConfig, SLEBPruner, UnsupportedModelError
from optimum_sleb.blocks.forward import evaluating, logits_of, losses_of
from optimum_sleb.blocks.losses import next_tokens

from .families import FAMILIES, random_ids, tiny_model
from .test_equivalence import skipped_logits

at_random = pytest.mark.reliability(
    "any family of the suite, any subset of blocks, barriers, windows and batch sizes, at random",
    lost="nothing: shortened == reloaded == skipped, exact == reference",
)

fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "40")),
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

pytestmark = pytest.mark.usefixtures("one_thread")


@st.composite
def models(draw: st.DrawFn, least: int = 2) -> tuple[str, dict[str, Any]]:
    """A family, and what is changed in its config."""
    family = draw(st.sampled_from(sorted(FAMILIES)))
    count = draw(st.integers(least, 8))
    changes: dict[str, Any] = {
        "num_hidden_layers": count,
        "seed": draw(st.integers(0, 100)),
        "tie_word_embeddings": draw(st.booleans()),
    }
    config = FAMILIES[family]()
    if getattr(config, "sliding_window", None):
        changes["sliding_window"] = draw(st.integers(2, 30))
    if getattr(config, "layer_types", None):
        kinds = st.sampled_from(sorted(set(config.layer_types)))
        changes["layer_types"] = draw(st.lists(kinds, min_size=count, max_size=count))
    return family, changes


def logits_without_gradients(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    with evaluating(model):
        return logits_of(model, ids)


@pytest.mark.long
@at_random
@pytest.mark.tries(fuzz.max_examples)
@fuzz
@given(models(), st.data())
def test_any_blocks_of_any_model(model: tuple[str, dict[str, Any]], data: st.DataObject) -> None:
    """Pruned in memory == dense with blocks skipped == saved and reloaded."""
    family, changes = model
    count = changes["num_hidden_layers"]
    removed = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=count - 1, unique=True), "removed")
    ids = random_ids(data.draw(st.integers(1, 3), "batch"), data.draw(st.integers(2, 40), "length"))
    dense = tiny_model(family, **changes)
    expected = skipped_logits(dense, removed, ids)

    pruner = SLEBPruner(dense)
    pruner.remove(removed)
    torch.testing.assert_close(logits_without_gradients(pruner.model, ids), expected)
    with TemporaryDirectory() as folder:
        pruner.save_pretrained(folder)
        reloaded, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    torch.testing.assert_close(logits_without_gradients(reloaded, ids), expected)


@pytest.mark.long
@at_random
@pytest.mark.tries(fuzz.max_examples)
@fuzz
@given(models(least=3), st.data())
def test_any_recipe(model: tuple[str, dict[str, Any]], data: st.DataObject) -> None:
    """The exact search measures and decides what the published one does, and what it says of the result is so."""
    family, changes = model
    count = changes["num_hidden_layers"]
    early = data.draw(st.integers(0, count - 2), "early_barrier")
    latter = data.draw(st.integers(0, count - 2 - early), "latter_barrier")
    lengths = data.draw(st.lists(st.integers(2, 30), min_size=1, max_size=6), "lengths")
    windows = [random_ids(length, seed=number) for number, length in enumerate(lengths)]
    config = SLEBConfig(
        num_blocks_to_remove=data.draw(st.integers(1, min(3, count - 1 - early - latter)), "num_blocks_to_remove"),
        early_barrier=early,
        latter_barrier=latter,
        batch_size=data.draw(st.integers(1, 8), "batch_size"),
    )
    exact, reference = (SLEBPruner(tiny_model(family, **changes)) for _ in range(2))
    try:
        exact.prune(config, calibration=windows)
    except UnsupportedModelError:
        with pytest.raises(UnsupportedModelError):
            reference.prune(replace(config, search="reference"), calibration=windows)
        return
    reference.prune(replace(config, search="reference", batch_size=1), calibration=windows)

    alive = list(range(count))
    for ours, theirs in zip(exact.report.steps, reference.report.steps, strict=True):
        assert sorted(ours.candidate_losses) == sorted(theirs.candidate_losses)
        assert set(ours.candidate_losses) <= set(alive[early : len(alive) - latter])
        for block, loss in ours.candidate_losses.items():
            assert loss == pytest.approx(theirs.candidate_losses[block], rel=1e-5)
        assert ours.loss == min(
            ours.candidate_losses[block] for block in ours.candidate_losses if block not in ours.barred_blocks
        )
        if ours.block != theirs.block:  # a tie, up to rounding: from here on these are two models
            assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
            break
        alive.remove(ours.block)
    with evaluating(exact.model):
        loss = sum(losses_of(exact.model, window[None], next_tokens(window[None])).item() for window in windows)
    assert loss == pytest.approx(exact.report.steps[-1].loss, rel=1e-5)
