"""What the checks are for: a family nobody foresaw is either right or refused before the search."""

import pytest
import torch
from torch import nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from optimum_sleb import SLEBConfig, SLEBPruner, UnsupportedModelError
from optimum_sleb.blocks import verify
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.blocks.verify import cache_failure, reason_not_removable
from optimum_sleb.errors import OutOfMemoryError
from optimum_sleb.search.method import why_not_exact

from ..families import random_ids, randomise, tiny_model


class StrangeConfig(PreTrainedConfig):
    """Fields that no rule knows: a factor per layer, an index list, and a choice to multiply by depth."""

    model_type = "strange"

    def __init__(
        self,
        widths=None,
        wide_blocks=(),
        multiply_by_depth=False,
        shift_by_depth=False,
        at_least=1,
        long_blocks=(),
        window_name=None,
        **kwargs,
    ):
        self.vocab_size = 64
        self.num_hidden_layers = kwargs.pop("num_hidden_layers", 5)
        self.widths = list(widths) if widths else [8] * self.num_hidden_layers
        self.wide_blocks = list(wide_blocks)
        self.multiply_by_depth = multiply_by_depth
        self.shift_by_depth = shift_by_depth
        self.at_least = at_least
        self.long_blocks = list(long_blocks)
        self.window_name = window_name
        if self.num_hidden_layers < at_least:
            raise ValueError(f"needs at least {at_least} blocks")
        super().__init__(**kwargs)


class StrangeBlock(nn.Module):
    def __init__(self, config: StrangeConfig, index: int):
        super().__init__()
        width = config.widths[index] * (2 if index in config.wide_blocks else 1)
        self.up = nn.Linear(16, width)
        self.down = nn.Linear(width, 16)
        if config.multiply_by_depth:
            self.strength = 1.0 / (index + 1)
        window = 48 if index in config.long_blocks else 20  # no probe is that long
        if config.window_name == "window":
            self.window = window
        elif config.window_name == "window_size":
            self.window_size = (window, 0)
        elif config.window_name == "is_long":
            self.is_long = int(index in config.long_blocks)
        self.offset = torch.tensor(float(index)) if config.shift_by_depth else None

    def forward(self, hidden):
        change = self.down(torch.relu(self.up(hidden.cumsum(1) / hidden.shape[1])))
        if self.offset is not None:
            change = change + self.offset.to(hidden.device)
        return hidden + getattr(self, "strength", 1.0) * change


class StrangeForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = StrangeConfig

    def __init__(self, config: StrangeConfig):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, 16)
        self.blocks = nn.ModuleList(StrangeBlock(config, index) for index in range(config.num_hidden_layers))
        self.head = nn.Linear(16, config.vocab_size)
        self.post_init()

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        for block in self.blocks:
            hidden = block(hidden)
        return CausalLMOutput(logits=self.head(hidden))


RECIPE = SLEBConfig(num_blocks_to_remove=2)


def strange(**options) -> StrangeForCausalLM:
    return randomise(StrangeForCausalLM(StrangeConfig(**options)))


def test_an_unknown_family_with_a_list_per_layer_is_right(tmp_path) -> None:
    pruner = SLEBPruner(strange(widths=[8, 4, 12, 6, 10]))
    model = pruner.prune(RECIPE, calibration=random_ids(2, 20))
    kept = pruner.report.blocks_after
    assert model.config.widths == [[8, 4, 12, 6, 10][block] for block in kept]
    pruner.save_pretrained(tmp_path / "pruned")
    again = StrangeForCausalLM.from_pretrained(tmp_path / "pruned")
    ids = random_ids(1, 12)
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, model(ids).logits)


def test_an_index_list_that_no_rule_knows_bars_the_blocks_that_it_would_shift(tmp_path) -> None:
    pruner = SLEBPruner(strange(wide_blocks=[2]))
    with pytest.warns(UserWarning, match="1 of the 2 blocks asked for were removed: no other can go with them"):
        pruner.prune(RECIPE, calibration=random_ids(2, 20))
    report = pruner.report
    assert report.removed_blocks == (3,)  # behind the wide block, so that its index stays
    assert set(report.barred_blocks) == {1, 2}
    assert (
        "would need other weights at their new places (6 differ, the first is blocks.1.down.weight)"
        in (report.barred_blocks[1])
    )
    assert "1 of 5 blocks could be removed; not, for example, block 1: the remaining" in report.summary()
    pruner.save_pretrained(tmp_path / "pruned")


def test_an_index_list_that_no_rule_knows_is_refused_where_it_would_shift_for_every_block() -> None:
    with pytest.raises(UnsupportedModelError, match=r"without block 1, the remaining blocks would need other weights"):
        SLEBPruner(strange(wide_blocks=[4])).prune(RECIPE, calibration=random_ids(2, 20))


def test_a_number_that_depends_on_depth_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedModelError, match=r"position: blocks.1.strength would be 0.5 instead of 0.333"):
        SLEBPruner(strange(multiply_by_depth=True)).prune(RECIPE, calibration=random_ids(2, 20))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("window", "blocks.2.window would be 20 instead of 48"),
        ("window_size", r"blocks.2.window_size would be \(20, 0\) instead of \(48, 0\)"),
        ("is_long", "blocks.2.is_long would be 0 instead of 1"),
    ],
)
def test_whole_numbers_that_are_no_indices_are_refused_by_name(name: str, change: str) -> None:
    """Too large to be noticed by a run on a few tokens."""
    with pytest.raises(UnsupportedModelError, match=rf"without block 1, .* depend on their position: {change}"):
        SLEBPruner(strange(long_blocks=[3], window_name=name)).prune(RECIPE, calibration=random_ids(2, 20))


def test_a_hidden_number_that_depends_on_depth_is_refused_by_its_effect() -> None:
    with pytest.raises(UnsupportedModelError, match=r"a model reloaded from its config would compute something else"):
        SLEBPruner(strange(shift_by_depth=True)).prune(RECIPE, calibration=random_ids(2, 20))


def test_a_set_that_cannot_go_together_is_noticed_in_the_search() -> None:
    # Any one of the blocks can go, but not two: the config wants at least four.
    pruner = SLEBPruner(strange(at_least=4))
    with pytest.warns(UserWarning, match="1 of the 2 blocks asked for .*needs at least 4 blocks"):
        pruner.prune(RECIPE, calibration=random_ids(2, 20))
    assert len(pruner.report.removed_blocks) == 1
    assert pruner.model.config.num_hidden_layers == 4


def test_a_search_that_can_remove_nothing_ends_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model with all its blocks must not pass for a pruned one."""
    model = strange()
    monkeypatch.setattr(verify, "removable_blocks", lambda model, stack, wanted: (list(wanted), {}))
    monkeypatch.setattr(verify, "reason_not_removable", lambda *_, **__: "blocks are shy")
    with pytest.raises(
        UnsupportedModelError, match=r"No block of this StrangeForCausalLM can be removed \(block \d: blocks are shy; "
    ):
        SLEBPruner(model).prune(RECIPE, calibration=random_ids(2, 20))
    assert len(model.blocks) == 5
    assert not hasattr(model.config, "sleb")


def test_nothing_was_searched_or_changed_when_refusing() -> None:
    model = strange(wide_blocks=[4])
    runs = []
    model.register_forward_hook(lambda *_: runs.append(1))
    pruner = SLEBPruner(model)
    before = len(runs)
    with pytest.raises(UnsupportedModelError):
        pruner.prune(RECIPE, calibration=random_ids(50, 20))
    assert len(runs) - before < 5
    assert model.config.num_hidden_layers == len(model.blocks) == 5


@pytest.mark.parametrize("where", ["in the blocks", "in generation", "block by block"])
def test_memory_that_runs_out_says_nothing_about_an_architecture(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the run: taken for a refusal, it would bar blocks, or make the search slow, for no reason of theirs."""

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model = tiny_model("llama")
    stack = find_decoder_stack(model)
    if where == "in the blocks":
        model.model.layers[3].register_forward_pre_hook(full)
    elif where == "in generation":
        monkeypatch.setattr(type(model), "generate", full)
    else:
        monkeypatch.setattr("optimum_sleb.blocks.runner.BlockRunner.run", full)
    with pytest.raises(OutOfMemoryError, match="offload='cpu'"):
        if where == "block by block":
            why_not_exact(model, stack, [1, 2, 3])
        else:
            reason_not_removable(model, stack, {2})


def test_a_cache_that_goes_wrong() -> None:
    model = tiny_model("llama")
    assert cache_failure(model) is None
    model.model.layers[2].self_attn.layer_idx = 7  # as after a cut without renumbering
    assert "generation with a cache" in cache_failure(model)


def test_a_model_that_cannot_generate() -> None:
    model = tiny_model("llama")
    model.can_generate = lambda: False
    assert cache_failure(model) is None
