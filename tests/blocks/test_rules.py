"""Each rule, on a config whose layout is known, against the layout sliced."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlavaConfig, Qwen3VLConfig

from optimum_sleb.blocks.rules import PERIODS, RULES, Removal, fit_period, num_image_blocks

COUNT = 8
KEPT = [0, 2, 3, 6, 7]  # 1, 4 and 5 go


def new_value(field: str, value, **fields):
    cut = Removal(SimpleNamespace(**{field: value}, **fields), COUNT, KEPT)
    return RULES[field][1](cut, value)


@pytest.mark.parametrize(
    "field", ["attn_layer_indices", "cross_attention_layers", "full_attn_idxs", "hybrid_layer_ids", "moe_layers"]
)
def test_indices(field: str) -> None:
    assert new_value(field, [1, 2, 6]) == [1, 3]  # 1 went, 2 is 1 now, 6 is 3 now
    assert new_value(field, []) == []


def test_indices_from_one() -> None:
    assert new_value("ple_layer_ids", [3, 5]) == [2]  # the third block is the second now, the fifth went


@pytest.mark.parametrize("field", ["first_k_dense_replace", "max_window_layers", "num_dense_layers"])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 1), (2, 1), (3, 2), (8, 5), (100, 5)])
def test_number_of_first_blocks(field: str, before: int, after: int) -> None:
    assert new_value(field, before) == after


@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 1), (2, 2), (3, 2), (5, 3), (8, 5)])
def test_number_of_last_blocks(before: int, after: int) -> None:
    assert new_value("num_kv_shared_layers", before) == after


def test_first_and_last_index() -> None:
    assert (new_value("moe_layer_start_index", 2), new_value("moe_layer_end_index", 5)) == (1, 2)


def test_sparse_step_becomes_a_list_of_dense_blocks() -> None:
    # Every second block has experts (1, 3, 5, 7), apart from 3.
    dense = new_value("mlp_only_layers", [3], decoder_sparse_step=2)
    assert dense == [0, 1, 2, 3]  # 0, 2, 3, 6; what was 7 keeps its experts
    assert new_value("decoder_sparse_step", 2) == 1


def test_repeated_patterns() -> None:
    assert new_value("block_types", ["recurrent", "recurrent", "attention"]) == [
        "recurrent",  # 0
        "attention",  # 2
        "recurrent",  # 3
        "recurrent",  # 6
        "recurrent",  # 7
    ]
    layers = ["global", "local"] * 4
    assert new_value("attention_types", [[["global", "local"], 4]], attention_layers=layers) == [
        [["global", "global", "local", "global", "local"], 1]
    ]


def test_residual_scale_stays_what_it_was() -> None:
    assert new_value("scale_depth", 1.4) / len(KEPT) ** 0.5 == pytest.approx(1.4 / COUNT**0.5, rel=1e-15)


def test_numbers_of_blocks() -> None:
    assert new_value("num_blocks", COUNT) == len(KEPT)
    assert new_value("num_nextn_predict_layers", 1) == new_value("num_mtp_layers", 2) == 0


@pytest.mark.long
@given(
    st.sets(st.integers(0, COUNT - 1), min_size=1),
    st.integers(1, COUNT).flatmap(lambda period: st.tuples(st.just(period), st.integers(0, period - 1))),
)
def test_a_fitted_period_describes_the_remaining_layout(kept: set[int], layout: tuple[int, int]) -> None:
    cut = Removal(LlamaConfig(), COUNT, sorted(kept))
    fit = fit_period(cut, *layout)
    wanted = [old % layout[0] == layout[1] for old in cut.kept]
    every = [
        (period, offset)
        for period in range(1, COUNT + 1)
        for offset in range(period)
        if wanted == [new % period == offset for new in range(len(wanted))]
    ]
    if fit is None:
        assert not every
    else:
        period, offset = fit
        assert wanted == [new % period == offset for new in range(len(wanted))]


def test_every_rule_has_a_meaning() -> None:
    assert all(meaning for meaning, _ in RULES.values())
    assert not set(PERIODS) & set(RULES)


def test_blocks_that_take_image_features() -> None:
    assert num_image_blocks(LlamaConfig()) == 0
    assert num_image_blocks(LlavaConfig()) == 0
    assert num_image_blocks(Qwen3VLConfig()) == 3
    granite = SimpleNamespace(deepstack_layer_map=[(3, 0), (7, 6)], spatial_target_layers=[2, 9])
    assert num_image_blocks(granite) == 10
