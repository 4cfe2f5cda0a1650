import json
from pathlib import Path

import pytest

from optimum_sleb import ConfigError, ReportError, SLEBConfig


@pytest.mark.parametrize(
    ("sparsity", "num_blocks", "expected"),
    [(0.1, 32, 4), (0.2, 32, 7), (0.1, 40, 4), (0.2, 40, 8), (0.1, 30, 3), (0.07, 100, 7), (0.001, 30, 1)],
)
def test_sparsity_is_rounded_up(sparsity: float, num_blocks: int, expected: int) -> None:
    assert SLEBConfig(sparsity=sparsity).num_blocks_to_remove_of(num_blocks) == expected


def test_the_other_two_ways() -> None:
    assert SLEBConfig(num_blocks_to_remove=5).num_blocks_to_remove_of(30) == 5
    assert SLEBConfig(max_perplexity_increase=0.1).num_blocks_to_remove_of(30) is None


def test_defaults_are_the_published_ones() -> None:
    config = SLEBConfig(sparsity=0.2)
    assert (config.dataset, config.num_samples, config.window_length, config.seed) == ("wikitext2", 128, 2048, 0)
    assert (config.early_barrier, config.latter_barrier) == (1, 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {},
            "exactly one of sparsity, num_blocks_to_remove, max_perplexity_increase, max_parameters, max_memory, "
            "min_speedup; got none of them",
        ),
        ({"sparsity": 0.2, "num_blocks_to_remove": 3}, "got sparsity=0.2, num_blocks_to_remove=3"),
        ({"sparsity": 0.0}, "sparsity must lie strictly between 0 and 1, got 0.0"),
        ({"sparsity": 1.0}, "sparsity must lie strictly between 0 and 1, got 1.0"),
        ({"sparsity": -0.2}, "sparsity must lie strictly between 0 and 1, got -0.2"),
        ({"sparsity": float("nan")}, "sparsity must lie strictly between 0 and 1, got nan"),
        ({"sparsity": "0.2"}, "sparsity must be float or None; got '0.2'"),
        ({"num_blocks_to_remove": 0}, "num_blocks_to_remove must be at least 1, got 0"),
        ({"num_blocks_to_remove": 2.0}, "num_blocks_to_remove must be int or None; got 2.0"),
        ({"max_perplexity_increase": 0.0}, "max_perplexity_increase must be a positive number, got 0.0"),
        ({"max_perplexity_increase": float("inf")}, "max_perplexity_increase must be a positive number, got inf"),
        ({"sparsity": 0.2, "window_length": 1}, "window_length must be at least 2, got 1"),
        ({"sparsity": 0.2, "early_barrier": -1}, "early_barrier must be at least 0, got -1"),
        ({"sparsity": 0.2, "racing_confidence": 0.0}, "racing_confidence must be a positive number, got 0.0"),
        ({"sparsity": 0.2, "batch_size": True}, "batch_size must be int or None; got True"),
        (
            {"sparsity": 0.2, "search": "fast"},
            "must be one of 'exact', 'racing', 'reference', 'auto'; got 'fast'",
        ),
    ],
)
def test_refusals(values: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        SLEBConfig(**values)
    assert message in str(error.value)


@pytest.mark.parametrize("values", [{"sparsity": 0.95}, {"num_blocks_to_remove": 5}, {"num_blocks_to_remove": 9}])
def test_barriers_must_be_left(values: dict) -> None:
    with pytest.raises(ConfigError, match=r"fewer than the 2 that early_barrier=1 and latter_barrier=1 protect"):
        SLEBConfig(**values).num_blocks_to_remove_of(6)


def test_budget_needs_a_candidate() -> None:
    with pytest.raises(ConfigError, match="needs at least 1 candidate"):
        SLEBConfig(max_perplexity_increase=0.1, early_barrier=3, latter_barrier=3).num_blocks_to_remove_of(6)


def test_round_trip(tmp_path: Path) -> None:
    config = SLEBConfig(max_perplexity_increase=0.1, dataset="c4", max_windows=None, bos_per_window=False)
    assert SLEBConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    config.save_pretrained(tmp_path / "new")
    assert SLEBConfig.from_pretrained(tmp_path / "new") == config


def test_files_are_not_trusted(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"holds no sleb_config.json"):
        SLEBConfig.from_pretrained(tmp_path)
    for content, message in [
        ("{", "is not valid JSON"),
        ("[]", "must hold a JSON object, got a list"),
        ('{"sparsity": 0.2, "colour": 1}', "Unknown key 'colour' in the recipe; known keys: sparsity, "),
    ]:
        (tmp_path / "sleb_config.json").write_text(content)
        with pytest.raises((ReportError, ConfigError)) as error:
            SLEBConfig.from_pretrained(tmp_path)
        assert message in str(error.value)
