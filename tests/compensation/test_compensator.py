"""Compensation against the slow, obvious way; and that it never makes a model worse."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from optimum_sleb import CalibrationError
from optimum_sleb.blocks.forward import evaluating, logits_of
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.compensation import matrices
from optimum_sleb.compensation.compensator import Compensator
from optimum_sleb.compensation.maps import fit_matrix
from optimum_sleb.compensation.matrices import MatrixChoice
from optimum_sleb.runtime.ranks import Ranks
from optimum_sleb.search.exact import ExactLosses

from ..architectures.tiny import tiny_model as tiny_of
from ..families import FAMILIES, NUM_BLOCKS, random_ids, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")


def open_compensator(
    model: PreTrainedModel, windows: TokenWindows, batch_size: int = 4, *, every_block: bool = False
) -> Compensator:
    stack = find_decoder_stack(model)
    return Compensator(model, stack, windows, model.dtype, Ranks.alone(), batch_size, every_block=every_block)


def record_calls(
    module: torch.nn.Module, model: PreTrainedModel, windows: TokenWindows
) -> list[tuple[Tensor, Tensor]]:
    """Input and output of a module while the model runs on windows, one by one."""
    calls: list[tuple[Tensor, Tensor]] = []
    hook = module.register_forward_hook(lambda _module, args, output: calls.append((args[0][0], output[0])))
    with evaluating(model):
        for window in windows.windows:
            logits_of(model, window[None])
    hook.remove()
    return calls


def refitted_by_hand(windows: TokenWindows, ridge: float) -> Tensor:
    """Least squares for block 1 of a Llama without blocks 2 and 3, all tokens but the first alike."""
    dense, short = tiny_model("llama"), tiny_model("llama")
    targets = [given for given, _ in record_calls(dense.model.layers[4], dense, windows)]
    with find_decoder_stack(short).skipping({2, 3}):
        down = record_calls(short.model.layers[1].mlp.down_proj, short, windows)
        states = [output for _, output in record_calls(short.model.layers[1], short, windows)]
    features = torch.cat([given[1:] for given, _ in down]).double()
    rest = torch.cat([(state - output)[1:] for state, (_, output) in zip(states, down, strict=True)])
    wanted = torch.cat([target[1:] for target in targets]).double() - rest
    weight = dense.model.layers[1].mlp.down_proj.weight.detach().double()
    strength = ridge * (features**2).sum(dim=0).mean()
    rows = torch.cat([features, torch.eye(features.shape[1], dtype=torch.float64) * strength**0.5])
    return torch.linalg.lstsq(rows, torch.cat([wanted, weight.T * strength**0.5])).solution.T


def test_equals_least_squares_on_the_models_own_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    def refit_only(moments, matrix, is_linear, loss_before, loss_with) -> MatrixChoice:
        chosen = fit_matrix(moments["all tokens but the first alike"], matrix, 0.1)
        return MatrixChoice(loss_with(chosen), "refit", chosen)

    monkeypatch.setattr(matrices, "choose_matrix", refit_only)
    windows = TokenWindows(tuple(random_ids(9, 24)))
    fitting = windows.select([0, 1, 3, 4, 6, 7])  # every third is held back
    with open_compensator(tiny_model("llama"), windows) as compensator:
        record = compensator.fit({2, 3})
        folded = compensator.changed_weights()["model.layers.1.mlp.down_proj.weight"]
    assert (record.num_fit_windows, record.num_held_back_windows) == (6, 3)
    torch.testing.assert_close(folded.double(), refitted_by_hand(fitting, 0.1), rtol=1e-3, atol=1e-4)


def every_refit_by_hand(windows: TokenWindows, removed: set[int], ridge: float) -> dict[str, Tensor]:
    """Least squares for all sublayers of a Llama from the first gap up, one after the other, by whole forwards."""
    dense, short = tiny_model("llama"), tiny_model("llama")
    stack = find_decoder_stack(short)

    def states(model: PreTrainedModel, module: torch.nn.Module) -> list[Tensor]:
        """What is given to a norm: the stream where it stands."""
        return [given for given, _ in record_calls(module, model, windows)]

    def behind(model: PreTrainedModel, block: int, module: str) -> list[Tensor]:
        layer = model.model.layers[block]
        if module == "self_attn.o_proj":
            return states(model, layer.post_attention_layernorm)
        return [output for _, output in record_calls(layer, model, windows)]

    folded = {}
    for block in (block for block in range(NUM_BLOCKS) if block not in removed and block >= min(removed) - 1):
        gap_ends = block
        while gap_ends + 1 in removed:
            gap_ends += 1
        for module in ("self_attn.o_proj", "mlp.down_proj") if block > min(removed) else ("mlp.down_proj",):
            linear = short.model.layers[block].get_submodule(module)
            targets = behind(dense, gap_ends if module == "mlp.down_proj" else block, module)
            with stack.skipping(removed):
                calls, here = record_calls(linear, short, windows), behind(short, block, module)
            features = torch.cat([given[1:] for given, _ in calls]).double()
            rest = torch.cat([(state - output)[1:] for state, (_, output) in zip(here, calls, strict=True)])
            wanted = torch.cat([target[1:] for target in targets]).double() - rest
            weight = linear.weight.detach().double()
            strength = ridge * (features**2).sum(dim=0).mean()
            rows = torch.cat([features, torch.eye(features.shape[1], dtype=torch.float64) * strength**0.5])
            fitted = torch.linalg.lstsq(rows, torch.cat([wanted, weight.T * strength**0.5])).solution.T
            with torch.no_grad():
                linear.weight.copy_(fitted)
            folded[f"model.layers.{block}.{module}.weight"] = fitted
    return folded


def test_every_block_equals_least_squares_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    uniform = "all tokens but the first alike"

    def refit_only(moments, matrix, is_linear, loss_before, loss_with) -> MatrixChoice:
        chosen = fit_matrix(moments[uniform], matrix, 0.1)
        return MatrixChoice(loss_with(chosen), "refit", chosen)

    monkeypatch.setattr(matrices, "choose_refit", refit_only)
    monkeypatch.setattr(matrices, "WEIGHTINGS_OF_A_REFIT", (uniform,))
    windows = TokenWindows(tuple(random_ids(9, 24)))
    with open_compensator(tiny_model("llama"), windows, every_block=True) as compensator:
        cuts = compensator.fit({2, 4}).cuts
        folded = compensator.changed_weights()
    expected = every_refit_by_hand(windows.select([0, 1, 3, 4, 6, 7]), {2, 4}, 0.1)
    assert [(cut.block, cut.gap, cut.module) for cut in cuts] == [
        (1, (2,), "mlp.down_proj"),
        (3, (), "self_attn.o_proj"),
        (3, (4,), "mlp.down_proj"),
        *((block, (), module) for block in range(5, NUM_BLOCKS) for module in ("self_attn.o_proj", "mlp.down_proj")),
    ]
    assert folded.keys() == expected.keys()
    for name, value in folded.items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-3, atol=1e-4)


def test_every_block_is_never_worse_than_the_gaps_before_it() -> None:
    windows = TokenWindows(tuple(random_ids(12, 24)))
    with open_compensator(tiny_model("llama"), windows, every_block=True) as compensator:
        cuts = compensator.fit({2, 3}).cuts
    losses = [cuts[0].loss_before, *(cut.loss_after for cut in cuts)]
    assert losses == sorted(losses, reverse=True)
    assert [cut.loss_before for cut in cuts[1:]] == [cut.loss_after for cut in cuts[:-1]]


@pytest.mark.parametrize(
    "removed",
    [{1, 2, 4}, *(pytest.param(blocks, marks=pytest.mark.long) for blocks in ({2}, {0, 3}, {NUM_BLOCKS - 1}))],
    ids=str,
)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("every_block", [False, pytest.param(True, marks=pytest.mark.long)])
def test_the_loss_it_tells_is_that_of_the_model_on_the_held_back_windows(
    every_block: bool, family: str, removed: set[int]
) -> None:
    model = tiny_model(family)
    windows = TokenWindows(tuple(random_ids(12, 24)))
    alive = [block for block in range(NUM_BLOCKS) if block not in removed]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measure = ExactLosses(model, find_decoder_stack(model), windows.select([2, 5, 8, 11]))
    plain = measure.losses_of(alive).sum().item()
    with open_compensator(model, windows, every_block=every_block) as compensator:
        record = compensator.fit(removed)
        compensated = measure.losses_of(alive).sum().item()
        folded = compensator.changed_weights()
        changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert record.cuts[0].loss_before == pytest.approx(plain, rel=1e-5)
    assert record.cuts[-1].loss_after == pytest.approx(compensated, rel=1e-5)
    assert changed == {name for name, value in folded.items() if not value.equal(before[name])}
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    for cut in record.cuts:
        assert cut.loss_after == min([cut.loss_before, *cut.tried.values()])
        assert (cut.kept is None) == (cut.loss_after == cut.loss_before)


def test_what_comes_out_depends_on_the_set_alone() -> None:
    windows = TokenWindows(tuple(random_ids(12, 24)))
    with open_compensator(tiny_model("llama"), windows) as compensator:
        for removed in ({2}, {2, 4}, {2, 3, 4}):  # a search comes by here
            compensator.fit(removed)
        along = compensator.changed_weights()
    with open_compensator(tiny_model("llama"), windows) as compensator:
        compensator.fit({2, 3, 4})
        straight = compensator.changed_weights()
    assert along.keys() == straight.keys()
    assert all(along[name].equal(straight[name]) for name in along)


def test_a_gap_at_the_bottom_is_told() -> None:
    with open_compensator(tiny_model("llama"), TokenWindows(tuple(random_ids(6, 24)))) as compensator:
        cut = compensator.fit({0, 1}).cuts[0]
    assert (cut.block, cut.gap, cut.kept) == (None, (0, 1), None)
    assert cut.reason == "no block stands before the gap"


def test_a_fit_stands_before_a_block_that_text_does_not_run() -> None:
    model = tiny_of("mllama", with_images=True)
    stack = find_decoder_stack(model)
    silent = [block for block in range(len(stack)) if block not in stack.forms]
    before, removed = silent[0] - 1, {silent[0] + 1, silent[0] + 2}
    windows = TokenWindows(tuple(random_ids(9, 24)))
    with open_compensator(model, windows) as compensator:
        cuts = compensator.fit(removed).cuts
        folded = compensator.changed_weights()
    assert [(cut.block, cut.gap) for cut in cuts] == [(before, tuple(sorted(removed)))]
    assert cuts[0].tried
    assert all(name.startswith(f"{stack.path}.{before}.") for name in folded)


@pytest.mark.parametrize("removed", [{0}, {0, 1}, "all that text runs"], ids=str)
def test_gaps_at_the_bottom_beside_blocks_that_text_does_not_run(removed: set[int] | str) -> None:
    model = tiny_of("mllama", with_images=True)
    stack = find_decoder_stack(model)
    removed = set(stack.forms) if isinstance(removed, str) else removed
    with open_compensator(model, TokenWindows(tuple(random_ids(6, 24)))) as compensator:
        (cut,) = compensator.fit(removed).cuts
    assert (cut.block, cut.gap) == (None, tuple(sorted(removed)))


def test_too_few_windows() -> None:
    with pytest.raises(CalibrationError, match="at least 3; the calibration data have 2"):
        open_compensator(tiny_model("llama"), TokenWindows(tuple(random_ids(2, 24))))


def test_judges_what_rounding_leaves() -> None:
    model = tiny_model("llama", dtype=torch.bfloat16).float()
    stack = find_decoder_stack(model)
    windows = TokenWindows(tuple(random_ids(9, 24)))
    with Compensator(model, stack, windows, torch.bfloat16, Ranks.alone()) as compensator:
        compensator.fit({2, 3})
        for name, value in compensator.changed_weights().items():
            assert value.dtype == torch.bfloat16
            assert model.get_parameter(name).equal(value.float())


@pytest.mark.long
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    family=st.sampled_from(["llama", "opt", "gpt2", "gemma3"]),
    removed=st.sets(st.integers(1, NUM_BLOCKS - 1), min_size=1, max_size=3),
    num_windows=st.integers(3, 7),
    length=st.sampled_from([2, 3, 24]),
    sink=st.sampled_from([1.0, 1e4, 1e30]),
    rank=st.sampled_from([None, 1, 0]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    every_block=st.booleans(),
)
def test_never_worse_and_never_broken(
    family: str,
    removed: set[int],
    num_windows: int,
    length: int,
    sink: float,
    rank: int | None,
    dtype: torch.dtype,
    every_block: bool,
) -> None:
    """Sinks, activations of low rank, and next to no calibration text."""
    model = tiny_model(family)
    with torch.no_grad():
        model.get_input_embeddings().weight[7] *= sink
        if rank is not None:
            model.get_input_embeddings().weight[:, rank:] = 0
    model = model.to(dtype)
    ids = random_ids(num_windows, length)
    ids[:, 0] = 7  # the sink stands in front
    windows = TokenWindows(tuple(ids))
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    alive = [block for block in range(NUM_BLOCKS) if block not in removed]
    held_back = windows.select(range(2, num_windows, 3))
    measure = ExactLosses(model, find_decoder_stack(model), held_back)
    plain = measure.losses_of(alive).double().sum().item()
    with open_compensator(model, windows, batch_size=1, every_block=every_block) as compensator:
        compensator.fit(removed)
        compensated = measure.losses_of(alive).double().sum().item()
        finite_before = _all_finite(shapes, model)
        assert {name: value.shape for name, value in model.state_dict().items()} == shapes
    assert finite_before
    assert not compensated > plain * (1 + 1e-6)


def _all_finite(names: Sequence[str], model: PreTrainedModel) -> bool:
    state = model.state_dict()
    return all(bool(state[name].isfinite().all()) for name in names)
