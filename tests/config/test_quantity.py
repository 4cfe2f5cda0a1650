"""Numbers as people write them."""

import json
from typing import Any

import pytest

from optimum_sleb import ConfigError, SLEBConfig
from optimum_sleb.config import quantity_of


@pytest.mark.parametrize(
    ("name", "text", "number"),
    [
        ("max_parameters", "6B", 6_000_000_000),
        ("max_parameters", "0.1b", 100_000_000),
        ("max_parameters", "113M", 113_000_000),
        ("max_parameters", "113.5 k", 113_500),
        ("max_parameters", "1.5e9", 1_500_000_000),
        ("max_parameters", "2T", 2_000_000_000_000),
        ("max_parameters", "7000", 7000),
        ("max_parameters", 7000, 7000),
        ("max_memory", "16GB", 16 * 10**9),
        ("max_memory", "16GiB", 16 * 2**30),
        ("max_memory", "1.5 gib", 3 * 2**29),
        ("max_memory", "512kB", 512_000),
        ("max_memory", "1e9", 10**9),
        ("max_memory", "80B", 80),
    ],
)
def test_numbers(name: str, text: Any, number: int) -> None:
    recipe = SLEBConfig(**{name: text})
    assert quantity_of(getattr(recipe, name), name) == number
    assert SLEBConfig.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_the_recipe_keeps_what_was_asked() -> None:
    assert SLEBConfig(max_parameters=" 6B ").max_parameters == "6B"
    assert SLEBConfig(max_parameters="6000") == SLEBConfig(max_parameters=6000)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_parameters": "6Q"}, "max_parameters must be a number such as 6_000_000_000, '6B', '113M' or '1.5e9'"),
        ({"max_memory": "16G"}, "max_memory must be a number such as 16_000_000_000, '16GB' or '16GiB'; got '16G'"),
        ({"max_parameters": "6GB"}, "got '6GB'"),
        ({"max_parameters": 1.5e9}, "max_parameters must be int or str or None"),
        ({"max_parameters": "0.9"}, "got '0.9'"),
        ({"min_speedup": 1.0}, "min_speedup must be a factor above 1, such as 1.25, got 1.0"),
        ({"min_speedup": float("nan")}, "min_speedup must be a factor above 1"),
        (
            {"max_parameters": "6B", "max_memory": "1GB"},
            "exactly one of .*; got max_parameters='6B', max_mem",
        ),
        ({"sparsity": 0.2, "context_length": 5}, "context_length=5 belongs to max_memory, which is not given"),
        ({"max_memory": "1GB", "speedup_of": "prompt"}, "speedup_of=prompt belongs to min_speedup"),
        ({"max_memory": "1GB", "num_sequences": 0}, "num_sequences must be at least 1, got 0"),
        ({"min_speedup": 1.2, "speedup_of": "training"}, "speedup_of must be one of 'prompt', 'generation'"),
    ],
)
def test_refusals(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SLEBConfig(**values)
