from dataclasses import MISSING, fields
from typing import Any

import pytest

from optimum_sleb import ConfigError, SLEBConfig
from optimum_sleb.config import recipe_of

GIVEN = SLEBConfig(sparsity=0.2, dataset="c4", seed=3)


def test_keywords_alone_are_a_recipe() -> None:
    assert recipe_of(None, {"sparsity": 0.2, "dataset": "c4", "seed": 3}) == GIVEN
    with pytest.raises(ConfigError, match="exactly one of sparsity, num_blocks_to_remove"):
        recipe_of(None, {"dataset": "c4"})


def test_keywords_change_a_given_recipe_field_by_field() -> None:
    assert recipe_of(GIVEN, {}) == GIVEN
    assert recipe_of(GIVEN, {"seed": 4}) == SLEBConfig(sparsity=0.2, dataset="c4", seed=4)
    assert recipe_of(GIVEN, {"sparsity": 0.3}).sparsity == 0.3


def test_another_amount_takes_the_place_of_the_recipes() -> None:
    assert recipe_of(GIVEN, {"num_blocks_to_remove": 6}) == SLEBConfig(num_blocks_to_remove=6, dataset="c4", seed=3)
    with pytest.raises(ConfigError, match="exactly one"):
        recipe_of(GIVEN, {"num_blocks_to_remove": 6, "sparsity": 0.5})
    with pytest.raises(ConfigError, match="exactly one"):
        recipe_of(GIVEN, {"sparsity": None})


def test_what_belongs_to_an_amount_goes_with_it() -> None:
    given = SLEBConfig(max_memory="16GB", context_length=4096)
    assert recipe_of(given, {"num_blocks_to_remove": 6}) == SLEBConfig(num_blocks_to_remove=6)
    assert recipe_of(given, {"max_memory": "8GB"}) == SLEBConfig(max_memory="8GB", context_length=4096)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("num_block_to_remove", "did you mean num_blocks_to_remove?"),
        ("num_blocks", "did you mean num_blocks_to_remove?"),
        ("sparsty", "did you mean sparsity?"),
        ("calibraton", "did you mean calibration?"),
        ("colour", "known keywords: sparsity"),
    ],
)
def test_an_unknown_keyword_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError) as error:
        recipe_of(GIVEN, {name: 1}, ["calibration"])
    assert f"'{name}'" in str(error.value)
    assert near in str(error.value)


@pytest.mark.parametrize("config", [{"sparsity": 0.2}, 0.2, "recipe", [GIVEN], SLEBConfig])
def test_what_is_no_recipe(config: Any) -> None:
    with pytest.raises(ConfigError, match="must be a SLEBConfig, or keywords such as sparsity=0.2; got"):
        recipe_of(config, {})


def test_a_recipe_is_shown_by_what_is_not_default_and_reads_back() -> None:
    assert repr(GIVEN) == "SLEBConfig(sparsity=0.2, dataset='c4', seed=3)"
    assert eval(repr(GIVEN), {"SLEBConfig": SLEBConfig}) == GIVEN
    assert all(field.default is not MISSING for field in fields(SLEBConfig))
