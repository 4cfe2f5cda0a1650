"""Recipes by name: what they change, and that fields of one's own come first."""

import pytest

from optimum_sleb import ConfigError, SLEBConfig
from optimum_sleb.config import PRESETS


def test_published_is_the_default() -> None:
    assert SLEBConfig(sparsity=0.2, **PRESETS["published"]) == SLEBConfig(sparsity=0.2)


def test_best_differs_from_the_defaults_in_what_it_names() -> None:
    default, best = SLEBConfig(sparsity=0.2).to_dict(), SLEBConfig.best(sparsity=0.2).to_dict()
    assert {name: value for name, value in best.items() if value != default[name]} == PRESETS["best"]
    assert (best["criterion"], best["search_space"], best["compensate"]) == ("kl", "runs", "every-block")


@pytest.mark.parametrize(("name", "default"), [("search", "exact"), ("criterion", None), ("compensate", "no")])
def test_a_field_of_ones_own_comes_first_also_at_its_default(name: str, default: str | None) -> None:
    assert getattr(SLEBConfig.best(sparsity=0.2, **{name: default}), name) == default


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "exactly one of sparsity"),
        ({"sparsity": 0.2, "compensate": "during"}, "use 'after' or 'every-block'"),
        ({"max_perplexity_increase": 0.1}, "use sparsity or num_blocks_to_remove"),
    ],
)
def test_refusals(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SLEBConfig.best(**values)


def test_a_budget_of_perplexity_by_cross_entropy() -> None:
    assert SLEBConfig.best(max_perplexity_increase=0.1, criterion=None).search_space == "runs"


def test_it_travels_as_its_fields() -> None:
    best = SLEBConfig.best(sparsity=0.2)
    assert SLEBConfig.from_dict(best.to_dict()) == best
    assert repr(best) == (
        "SLEBConfig(sparsity=0.2, dataset='wikitext2+c4', criterion='kl', compensate='every-block', "
        "search_space='runs', search='auto')"
    )
