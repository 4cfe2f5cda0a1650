"""Blocks that come to the device one at a time: the same numbers, and nothing left behind."""

from contextlib import nullcontext
from itertools import chain

import pytest
import torch

from optimum_sleb import SLEBConfig
from optimum_sleb.blocks.loader import BlockLoader
from optimum_sleb.blocks.offload import loading_hooks, offloaded
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.blocks.verify import reason_not_removable, removable_blocks
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.compensation.compensator import Compensator
from optimum_sleb.models.placement import Placement, stack_on_device
from optimum_sleb.runtime.ranks import Ranks
from optimum_sleb.search.exact import ExactLosses
from optimum_sleb.search.layerwise import LayerwiseLosses

from ..families import FAMILIES, NUM_BLOCKS, random_ids, tiny_model
from ..searching import run_search

blocks_in_host_memory = pytest.mark.reliability(
    "blocks in host memory, on a device that does not hold the model: errors, changed weights",
    lost="nothing: the model is as it was",
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("windows_at_a_time", [pytest.param(1, marks=pytest.mark.long), 2])
@pytest.mark.parametrize(
    "alive",
    [
        pytest.param(range(NUM_BLOCKS), id="all", marks=pytest.mark.long),
        pytest.param([0, 1, 3, 5], id="after two removals"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_layer_by_layer_equals_exact(family: str, alive: list[int], windows_at_a_time: int, device: str) -> None:
    model = tiny_model(family)
    stack = find_decoder_stack(model)
    windows = TokenWindows((*random_ids(4, 20), *random_ids(1, 11)))
    candidates = [block for block in alive if block > 0]
    exact = ExactLosses(model, stack, windows)
    expected, dense = exact.measure(alive, candidates).matrix, exact.losses_of(alive)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with offloaded(model, stack, torch.device(device)) as there:
        measure = LayerwiseLosses(model, there, windows, batch_size=3, windows_at_a_time=windows_at_a_time)
        torch.testing.assert_close(measure.measure(alive, candidates).matrix, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(measure.losses_of(alive), dense, rtol=1e-5, atol=1e-5)
    assert (measure.block_passes, measure.head_passes) == (exact.block_passes, exact.head_passes)
    after = model.state_dict()
    assert all(after[name].device.type == "cpu" and after[name].equal(before[name]) for name in before)


@pytest.mark.parametrize("alive", [range(NUM_BLOCKS), [0, 1, 3, 5]], ids=["all", "after two removals"])
def test_every_block_is_brought_once_for_a_batch(alive: list[int]) -> None:
    model = tiny_model("llama")
    windows = TokenWindows(tuple(random_ids(4, 20)))
    with offloaded(model, find_decoder_stack(model), torch.device("cpu")) as there:
        measure = LayerwiseLosses(model, there, windows, batch_size=2)
        measure.measure(alive, alive[1:-1])
        # The two batches; and the first block again, ahead of a third that never came.
        assert there.loader.loads == 2 * len(alive) + 1


@blocks_in_host_memory
def test_what_is_written_to_a_block_stays() -> None:
    model = tiny_model("llama")
    stack = find_decoder_stack(model)
    weights = {index: stack.blocks[index].mlp.up_proj.weight for index in (2, 3, 5)}
    with offloaded(model, stack, torch.device("cpu")) as there:
        there.loader.load(2)  # block 3 is on its way, block 5 lies where it was
        for index, weight in weights.items():
            weight.data.fill_(index)
            there.loader.write_back(weight)
        for index in (3, 5, 2):
            there.loader.load(index)
            assert weights[index].unique().item() == index
    assert [weight.unique().item() for weight in weights.values()] == list(weights)


@blocks_in_host_memory
def test_the_model_runs_as_it_is(device: str) -> None:
    model = tiny_model("gemma3")
    stack = find_decoder_stack(model)
    ids = random_ids(2, 20)
    with torch.no_grad():
        expected = model(ids).logits
        with offloaded(model, stack, torch.device(device)) as there, loading_hooks(there), there.skipping({2}):
            skipped = model(ids.to(device)).logits.cpu()
        with offloaded(model, stack, torch.device(device)) as there, loading_hooks(there):
            torch.testing.assert_close(model(ids.to(device)).logits.cpu(), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model(ids).logits, expected)
        with stack.skipping({2}):
            torch.testing.assert_close(skipped, model(ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "bloom", "qwen2"])
def test_the_gates_block_by_block(family: str, device: str) -> None:
    model = tiny_model(family)
    stack = find_decoder_stack(model)
    before = {name: (value.data_ptr(), value.clone()) for name, value in model.state_dict().items()}
    expected = removable_blocks(model, stack, range(1, NUM_BLOCKS))
    together = reason_not_removable(model, stack, {1, 2, 4})
    with offloaded(model, stack, torch.device(device)) as there:
        assert removable_blocks(model, there, range(1, NUM_BLOCKS)) == expected
        there.loader.load(4)
        assert reason_not_removable(model, there, {1, 2, 4}) == together
    for name, value in model.state_dict().items():
        assert value.data_ptr() == before[name][0]
        assert value.equal(before[name][1])


@blocks_in_host_memory
def test_the_model_comes_back_after_an_error() -> None:
    model = tiny_model("llama")
    before = {name: value.data_ptr() for name, value in model.state_dict().items()}
    with pytest.raises(ZeroDivisionError), offloaded(model, find_decoder_stack(model), torch.device("cpu")) as there:
        there.loader.load(2)
        raise ZeroDivisionError
    assert {name: value.data_ptr() for name, value in model.state_dict().items()} == before


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_at_most_two_blocks_are_on_the_device() -> None:
    model = tiny_model("llama", hidden_size=256, intermediate_size=1024, head_dim=64, num_hidden_layers=12)
    stack = find_decoder_stack(model)
    block = sum(parameter.nbytes for parameter in stack.blocks[0].parameters())
    with offloaded(model, stack, torch.device("cuda")) as there:
        around = torch.cuda.memory_allocated()
        for index in range(12):
            there.loader.load(index)
            torch.cuda.synchronize()
            assert torch.cuda.memory_allocated() - around <= 2.1 * block


@pytest.mark.long
@pytest.mark.parametrize("search", ["exact", "racing"])
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize("compensate", ["no", "during", "every-block"])
def test_a_whole_search(family: str, search: str, compensate: str, device: str) -> None:
    windows = TokenWindows(tuple(random_ids(9, 20)))
    config = SLEBConfig(num_blocks_to_remove=2, search=search, compensate=compensate)
    results = []
    for compute_on in (None, torch.device(device)):
        model = tiny_model(family)
        stack = find_decoder_stack(model)
        with stack_on_device(model, stack, Placement(compute_on)) as placed:
            results.append(run_search(model, placed, windows, range(1, NUM_BLOCKS - 1), config))
    here, offloaded_there = results
    assert [step.block for step in offloaded_there.steps] == [step.block for step in here.steps]
    for step, expected in zip(offloaded_there.steps, here.steps, strict=True):
        assert step.losses == pytest.approx(expected.losses, rel=1e-5)
    assert offloaded_there.record.reason == "blocks are brought to the device one at a time"
    for name, value in here.weights.items():
        torch.testing.assert_close(offloaded_there.weights[name].cpu(), value, rtol=1e-3, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_blocks_are_used_only_while_they_are_there(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, whoever computes with a block that was not brought meets another device; here, NaN."""

    def spoil(loader: BlockLoader) -> None:
        for tensor in chain.from_iterable(loader._tensors):
            tensor.data = torch.full_like(tensor.data, float("nan"))
        loader._current = None

    load = BlockLoader.load
    monkeypatch.setattr(BlockLoader, "load", lambda loader, index: (spoil(loader), load(loader, index)))
    windows = TokenWindows(tuple(random_ids(9, 20)))
    removed = {2, 4}
    records = []
    for offload in (False, True):
        model = tiny_model(family)
        stack = find_decoder_stack(model)
        context = offloaded(model, stack, torch.device("cpu")) if offload else nullcontext(stack)
        with context as there, Compensator(model, there, windows, torch.float32, Ranks.alone()) as compensator:
            records.append(compensator.fit(removed))
    expected, record = records
    assert all(cut.kept is not None or cut.tried for cut in record.cuts)
    assert [cut.kept for cut in record.cuts] == [cut.kept for cut in expected.cuts]
    for cut, other in zip(record.cuts, expected.cuts, strict=True):
        assert cut.loss_after == pytest.approx(other.loss_after, rel=1e-5)
