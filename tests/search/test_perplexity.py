"""The perplexity of a search by the divergence: that of whole logits, for one pass before it and one after."""

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from optimum_sleb import SLEBConfig, SLEBPruner
from optimum_sleb.search.exact import ExactLosses

from ..families import random_ids, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")
IDS = [*random_ids(4, 20), *random_ids(3, 11)]


@torch.no_grad()
def perplexity_of(model: PreTrainedModel, ids: list[torch.Tensor] = IDS) -> float:
    losses = [model(row[None], labels=row[None]).loss.double() * len(row) for row in ids]
    return torch.stack(losses).sum().div(sum(map(len, ids))).exp().item()


def prune(pruner: SLEBPruner, arguments: dict[str, Any] | None = None, **recipe: Any) -> SLEBPruner:
    config = SLEBConfig(**{"num_blocks_to_remove": 2, "criterion": "kl"} | recipe)
    pruner.prune(config, calibration=IDS, **arguments or {})
    return pruner


WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "greedy": ({}, {}),
    "sets": ({"search_space": "runs"}, {}),
    "racing": ({"search": "racing"}, {}),
    "reference": ({"search": "reference"}, {}),
    "offloaded": ({}, {"device": "cpu", "offload": "cpu"}),
    "greedy, after": ({"compensate": "after"}, {}),
    "greedy, every block": ({"compensate": "every-block"}, {}),
    "sets, every block": ({"search_space": "runs", "compensate": "every-block"}, {}),
    "offloaded sets, after": ({"beam_width": 2, "compensate": "after"}, {"device": "cpu", "offload": "cpu"}),
}


@pytest.mark.parametrize(
    "way", [name if name == "greedy" else pytest.param(name, marks=pytest.mark.long) for name in WAYS]
)
def test_it_is_that_of_whole_logits(way: str) -> None:
    recipe, arguments = WAYS[way]
    pruner = SLEBPruner(tiny_model())
    before = perplexity_of(pruner.model)
    report = prune(pruner, arguments, **recipe).report
    assert report.search.perplexity_before == report.perplexity_before == pytest.approx(before, rel=1e-5)
    assert report.perplexity_after == pytest.approx(perplexity_of(pruner.model), rel=1e-5)
    assert report.perplexity_after != report.perplexity_before
    assert report.cut(1).perplexity_after is None
    if "compensate" in recipe:
        applied = SLEBPruner(tiny_model())
        applied.apply(report, 1, calibration=IDS)
        assert applied.report.perplexity_before == report.perplexity_before
        assert applied.report.perplexity_after == pytest.approx(perplexity_of(applied.model), rel=1e-5)


def test_it_takes_one_pass_after_and_none_before(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    losses_of = ExactLosses.losses_of
    monkeypatch.setattr(
        ExactLosses, "losses_of", lambda losses, alive: runs.append(len(alive)) or losses_of(losses, alive)
    )
    assert prune(SLEBPruner(tiny_model()), criterion=None).report.search.perplexity_before is None
    assert runs == [6]  # the loss before the search
    prune(SLEBPruner(tiny_model()))
    assert runs == [6, 4]  # the divergence keeps what is needed of the dense model


def test_what_is_not_finite_is_left_out() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight *= 1e6  # sure of the wrong token by thousands of nats
    report = prune(SLEBPruner(model)).report
    assert report.search.perplexity_before is report.search.perplexity_after is None
    assert report.criterion_after > 0


@pytest.mark.long
def test_in_the_precision_of_the_search() -> None:
    """On a CPU float32, of weights in bfloat16."""
    pruner = SLEBPruner(tiny_model(dtype=torch.bfloat16))
    before = perplexity_of(tiny_model(dtype=torch.bfloat16).float())
    report = prune(pruner, search_space="runs", compensate="after").report
    assert report.perplexity_before == pytest.approx(before, rel=1e-5)
    assert report.perplexity_after == pytest.approx(perplexity_of(pruner.model.float()), rel=1e-5)
