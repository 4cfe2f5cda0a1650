"""Which recipes search over sets of blocks, and which of their fields contradict each other."""

from typing import Any

import pytest

from optimum_sleb import ConfigError, SLEBConfig
from optimum_sleb.config import searches_sets, width_of_beam


@pytest.mark.parametrize(
    ("fields", "is_over_sets", "width"),
    [
        ({}, False, 1),
        ({"beam_width": 1}, False, 1),
        ({"beam_width": 2}, True, 2),
        ({"search_space": "runs"}, True, 4),
        ({"search_space": "runs", "beam_width": 1}, True, 1),
        ({"search_space": "runs", "beam_width": 9}, True, 9),
    ],
)
def test_a_recipe_over_sets(fields: dict[str, Any], is_over_sets: bool, width: int) -> None:
    recipe = SLEBConfig(sparsity=0.2, **fields)
    assert (searches_sets(recipe), width_of_beam(recipe)) == (is_over_sets, width)


@pytest.mark.parametrize("compensate", ["no", "after", "every-block"])
def test_sets_can_be_compensated_at_the_end(compensate: Any) -> None:
    assert SLEBConfig(sparsity=0.2, search_space="runs", compensate=compensate).compensate == compensate


@pytest.mark.parametrize("fields", [{"search_space": "runs"}, {"beam_width": 2}])
def test_sets_cannot_be_compensated_on_the_way(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"compensate='during' .* \(search_space, beam_width\) .* use 'after' or"):
        SLEBConfig(sparsity=0.2, compensate="during", **fields)
    assert SLEBConfig(sparsity=0.2, compensate="during", beam_width=1).compensate == "during"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"beam_width": 0}, "beam_width must be at least 1, got 0"),
        ({"beam_width": 2.0}, "beam_width must be int or None; got 2.0"),
        ({"beam_width": 2**31}, "beam_width must be at most 2,147,483,647, got 2147483648"),
        ({"search_space": "walks"}, "search_space must be one of 'runs'; got 'walks'"),
        ({"compensate": "every"}, "compensate must be one of 'no', 'after', 'during', 'every-block'; got 'every'"),
    ],
)
def test_refusals(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        SLEBConfig(sparsity=0.2, **fields)
    assert message in str(error.value)
