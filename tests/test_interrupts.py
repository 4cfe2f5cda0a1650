"""Ctrl-C at every line of every context: the model is as it was, or pruned as a whole."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from transformers import PreTrainedModel

from optimum_sleb import SLEBConfig, SLEBPruner
from optimum_sleb.blocks.forward import evaluating, logits_of
from optimum_sleb.blocks.offload import loading_hooks, offloaded, offloaded_like
from optimum_sleb.blocks.precision import computing_in_float32
from optimum_sleb.blocks.runner import open_runner
from optimum_sleb.blocks.stack import DecoderStack, find_decoder_stack
from optimum_sleb.blocks.state import removing_hooks
from optimum_sleb.blocks.surgery import build_shortened, fill, kept_state
from optimum_sleb.compensation.changes import ChangedWeights
from optimum_sleb.compensation.finding import find_sites
from optimum_sleb.evaluation.curve import put_weights
from optimum_sleb.evaluation.time_shares import measure_time_shares
from optimum_sleb.runtime.undo import undoing

from .families import NUM_BLOCKS, random_ids
from .interrupting import END, Line, interrupt_everywhere, whole_state
from .test_state import odd_model

IDS = random_ids(2, 20)
CPU = torch.device("cpu")
MOMENTS = 50


def in_evaluation(model: PreTrainedModel, _stack: DecoderStack) -> None:
    with evaluating(model):
        pass


def in_float32(model: PreTrainedModel, _stack: DecoderStack) -> None:
    with computing_in_float32(model):
        pass


def with_stand_ins(model: PreTrainedModel, stack: DecoderStack) -> None:
    with stack.skipping({1, 4}):
        pass


def with_a_runner(model: PreTrainedModel, stack: DecoderStack) -> None:
    with open_runner(model, stack) as runner:
        runner.run(runner.start(IDS), [0, 3])


def with_blocks_in_host_memory(model: PreTrainedModel, stack: DecoderStack) -> None:
    with (
        offloaded(model, stack, CPU) as there,
        evaluating(model),
        computing_in_float32(model, there.loader),
        loading_hooks(there),
    ):
        logits_of(model, IDS[:1, :3])


def with_a_template(model: PreTrainedModel, stack: DecoderStack) -> None:
    template = build_shortened(model, stack, [0, 2])
    fill(template, model, kept_state(model, stack, [0, 2], template))
    with offloaded(model, stack, CPU) as there, offloaded_like(template, there):
        pass


def with_the_forms(model: PreTrainedModel, _stack: DecoderStack) -> None:
    find_decoder_stack(model)


def with_changed_weights(model: PreTrainedModel, stack: DecoderStack) -> None:
    changed = ChangedWeights()
    with torch.no_grad(), undoing(changed.put_all_back):
        for block in list(stack.blocks)[:2]:
            parameter = next(block.parameters())
            changed.put(parameter, torch.zeros_like(parameter))
            changed.put_back(parameter)
            changed.put(parameter, torch.ones_like(parameter))


def with_a_site(model: PreTrainedModel, stack: DecoderStack) -> None:
    with open_runner(model, stack) as runner:
        find_sites(runner.block(1), runner.start(IDS[:1]), 1)


def with_other_weights(model: PreTrainedModel, _stack: DecoderStack) -> None:
    originals = {name: one.data for name, one in model.named_parameters()}
    with undoing(partial(put_weights, model, originals)):
        put_weights(model, {name: torch.zeros_like(one) for name, one in originals.items()})


def with_a_stopwatch(model: PreTrainedModel, _stack: DecoderStack) -> None:
    with torch.no_grad():
        measure_time_shares(model, partial(logits_of, model, IDS[:1, :3]))


def with_hooks(model: PreTrainedModel, _stack: DecoderStack) -> None:
    with removing_hooks() as hooks:
        hooks.append(model.register_forward_hook(lambda *_: None))


CONTEXTS: list[Callable[[PreTrainedModel, DecoderStack], None]] = [
    in_evaluation,
    with_stand_ins,
    with_changed_weights,
    with_hooks,
]
LONG_CONTEXTS = [
    in_float32,
    with_a_runner,
    with_other_weights,
    with_the_forms,
    with_a_stopwatch,
    with_blocks_in_host_memory,
    with_a_template,
    with_a_site,
]


@pytest.mark.reliability(
    "Ctrl-C at every line of every context that changes a model for a while", lost="nothing: the model is as it was"
)
@pytest.mark.tries(100)
@pytest.mark.parametrize("context", [*CONTEXTS, *(pytest.param(one, marks=pytest.mark.long) for one in LONG_CONTEXTS)])
def test_ctrl_c_in_a_context_leaves_the_model_as_it_was(
    context: Callable[[PreTrainedModel, DecoderStack], None],
) -> None:
    model = odd_model(dtype=torch.bfloat16)
    model.model.layers[2].register_forward_hook(lambda *_: None)
    stack = find_decoder_stack(model)
    before = whole_state(model)

    def check(line: Line) -> None:
        assert whole_state(model) == before, line

    assert interrupt_everywhere(partial(context, model, stack), check, all_of_them=context in CONTEXTS) > 5


@pytest.mark.reliability(
    "Ctrl-C at any line of a removal, of a search and of its compensation",
    lost="nothing: the model is as it was",
)
@pytest.mark.tries(MOMENTS)
@pytest.mark.long
@pytest.mark.parametrize("run", ["remove", "prune", "compensate"])
def test_ctrl_c_in_a_run_leaves_a_whole_model(run: str) -> None:
    config = SLEBConfig(
        num_blocks_to_remove=1,
        window_length=20,
        early_barrier=2,
        latter_barrier=2,
        compensate="after" if run == "compensate" else "no",
    )
    ids = random_ids(4, 20)
    model = odd_model(dtype=torch.bfloat16)
    pruner, before = SLEBPruner(model), whole_state(model)

    def check(line: Line) -> None:
        nonlocal model, pruner, before
        assert len(pruner.blocks) == len(model.model.layers) == model.config.num_hidden_layers, line
        if len(pruner.blocks) == NUM_BLOCKS:
            assert whole_state(model) == before, line
            return
        # The interrupt came when all was done, in the end of a context around it.
        assert line[0] in (END[0], "/base.py", "/runtime/turns.py", "/runtime/undo.py", "/blocks/state.py"), line
        assert pruner.report.blocks_after == pruner.blocks
        model = odd_model(dtype=torch.bfloat16)
        pruner, before = SLEBPruner(model), whole_state(model)

    def go() -> None:
        if run == "remove":
            pruner.remove([2])
        else:
            pruner.prune(config, calibration=ids)

    assert interrupt_everywhere(go, check, all_of_them=False, at_most=MOMENTS) == MOMENTS
