"""Compensation from the recipe to the card: in the search, for shallower cuts, over interruptions."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, MixtralConfig

from optimum_sleb import (
    CalibrationError,
    ConfigError,
    PruningReport,
    ReportError,
    SLEBConfig,
    SLEBPruner,
    VerificationError,
)
from optimum_sleb.card.card import render_card
from optimum_sleb.search import compensating

from ..architectures.tiny import tiny_model as tiny_of
from ..families import random_ids, randomise, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = random_ids(18, 24)
NUM_BLOCKS = 8


def pruner() -> SLEBPruner:
    return SLEBPruner(tiny_model("llama", num_hidden_layers=NUM_BLOCKS))


def recipe(num_blocks: int, compensate: str, **values: object) -> SLEBConfig:
    return SLEBConfig(num_blocks_to_remove=num_blocks, compensate=compensate, **values)


def same_weights(one: SLEBPruner, other: SLEBPruner) -> bool:
    mine, theirs = one.model.state_dict(), other.model.state_dict()
    return mine.keys() == theirs.keys() and all(mine[name].equal(theirs[name]) for name in mine)


@pytest.mark.long
@pytest.mark.parametrize("compensate", ["after", "during", "every-block"])
@pytest.mark.parametrize("search", ["exact", "racing", "reference"])
def test_report_model_and_folder_agree(compensate: str, search: str, tmp_path: Path) -> None:
    plain, compensated = pruner(), pruner()
    plain.prune(recipe(4, "no"), calibration=IDS)
    compensated.prune(recipe(4, compensate, search=search), calibration=IDS)
    report = compensated.report
    assert report.compensation.cuts
    if compensate == "after":
        assert compensated.blocks == plain.blocks
        assert compensated.report.perplexity_after < plain.report.perplexity_after
    told = [step.compensated_loss is not None for step in report.steps]
    assert told == ([True] * 4 if compensate != "after" else [False, False, False, True])
    # No module, no parameter more than plain SLEB's.
    shapes = {name: value.shape for name, value in compensated.model.state_dict().items()}
    assert shapes == {name: value.shape for name, value in plain.model.state_dict().items()}
    # What the report says is what the folder holds.
    compensated.save_pretrained(tmp_path / "pruned")
    reloaded = SLEBPruner(AutoModelForCausalLM.from_pretrained(tmp_path / "pruned"))
    with torch.no_grad():
        loss = sum(reloaded.model(row[None], labels=row[None]).loss.item() * 24 for row in IDS)
    assert loss == pytest.approx(report.steps[-1].compensated_loss, rel=1e-5)
    assert PruningReport.load(tmp_path / "pruned") == compensated.report


@pytest.mark.long
@pytest.mark.parametrize("compensate", ["after", "during", "every-block"])
def test_a_shallower_cut_equals_a_search_to_its_depth(compensate: str) -> None:
    deep, straight, cut = pruner(), pruner(), pruner()
    deep.prune(recipe(4, compensate), calibration=IDS)
    straight.prune(recipe(2, compensate), calibration=IDS)
    cut.apply(deep.report, 2, calibration=IDS)
    assert same_weights(cut, straight)
    assert cut.report.perplexity_after == straight.report.perplexity_after
    assert cut.report.compensation.cuts == straight.report.compensation.cuts


@pytest.mark.long
def test_fits_are_verified_by_the_divergence_from_the_dense_model() -> None:
    deep, straight, cut = pruner(), pruner(), pruner()
    deep.prune(recipe(3, "every-block", criterion="kl"), calibration=IDS)
    straight.prune(recipe(2, "every-block", criterion="kl"), calibration=IDS)
    cut.apply(deep.report, 2, calibration=IDS)
    assert same_weights(cut, straight)
    assert cut.report.compensation.cuts == straight.report.compensation.cuts
    first, *_, last = straight.report.compensation.cuts
    assert first.loss_before > last.loss_after >= 0


@pytest.mark.long
@pytest.mark.parametrize("family", ["gemma3n_text", "gemma4_text", "hy_v4"])
def test_where_some_blocks_are_barred_it_is_applied_all_the_same(family: str) -> None:
    searched, applied = SLEBPruner(tiny_of(family)), SLEBPruner(tiny_of(family))
    searched.prune(recipe(2, "during", early_barrier=0 if family == "hy_v4" else 1), calibration=IDS)
    assert searched.report.barred_blocks
    applied.apply(searched.report, calibration=IDS)
    assert same_weights(applied, searched)
    assert applied.report.perplexity_after == searched.report.perplexity_after


@pytest.mark.long
def test_a_shallower_cut_needs_the_same_data() -> None:
    deep = pruner()
    deep.prune(recipe(2, "during"), calibration=IDS)
    with pytest.raises(CalibrationError, match="are not those of the search"):
        pruner().apply(deep.report, 1, calibration=IDS[:12])


@pytest.mark.long
@pytest.mark.parametrize("compensations", [("during", "no"), ("after", "no"), ("no", "during")], ids=str)
def test_compensation_of_several_runs_is_refused_rather_than_dropped(compensations: tuple[str, str]) -> None:
    twice, fresh = pruner(), pruner()
    for compensate in compensations:
        twice.prune(recipe(1, compensate), calibration=IDS)
    with pytest.raises(ReportError, match="pruned several times, whose compensation cannot be repeated"):
        fresh.apply(twice.report, calibration=IDS)
    assert same_weights(fresh, pruner())
    fresh.apply(twice.report, 1, calibration=IDS)  # the first run alone
    assert fresh.report.perplexity_after == twice.report.first_run.perplexity_after


@pytest.mark.long
def test_compensation_before_blocks_were_named_is_not_dropped_either() -> None:
    twice = pruner()
    twice.prune(recipe(1, "during"), calibration=IDS)
    twice.remove([twice.blocks[-1]])
    with pytest.raises(ReportError, match="pruned several times"):
        pruner().apply(twice.report, calibration=IDS)


@pytest.mark.long
def test_the_command_cuts_a_compensated_run_again(
    tmp_path: Path, text_file: Path, model_folder: Path, tokenizer
) -> None:
    config = recipe(3, "during", dataset=str(text_file), window_length=16)
    deep = SLEBPruner.from_pretrained(model_folder)
    deep.prune(config)
    cut, straight = SLEBPruner.from_pretrained(model_folder), SLEBPruner.from_pretrained(model_folder)
    cut.apply(deep.report, 2)  # the recipe names the text
    straight.prune(replace(config, num_blocks_to_remove=2))
    assert same_weights(cut, straight)


@pytest.mark.long
def test_interrupted_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken, resumed = pruner(), pruner(), pruner()
    whole.prune(recipe(3, "during"), calibration=IDS)

    def give_up(self: object, report: PruningReport) -> None:
        if len(report.steps) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("optimum_sleb.search.progress.Progress.save", give_up)
        with pytest.raises(KeyboardInterrupt):
            broken.prune(recipe(3, "during"), calibration=IDS, progress_dir=tmp_path)
    assert same_weights(broken, pruner())  # the dense weights came back
    resumed.prune(recipe(3, "during"), calibration=IDS, progress_dir=tmp_path, resume=True)
    assert same_weights(resumed, whole)


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_weights_come_back_after_an_error(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama", num_hidden_layers=NUM_BLOCKS, dtype=dtype)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def fail(compensator, measure, removed):
        compensator.fit(removed)
        raise ZeroDivisionError

    monkeypatch.setattr(compensating, "compensate", fail)
    with pytest.raises(ZeroDivisionError):
        SLEBPruner(model).prune(recipe(2, "during"), calibration=IDS)
    after = model.state_dict()
    assert all(after[name].equal(before[name]) and after[name].dtype == dtype for name in before)


@pytest.mark.long
@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("applied", [False, True])
def test_the_dense_weights_come_back_if_the_cut_fails(
    applied: bool, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    searched, again = pruner(), pruner()
    searched.prune(recipe(2, "during"), calibration=IDS)

    def prune() -> None:
        if applied:
            again.apply(searched.report, calibration=IDS)
        else:
            again.prune(recipe(2, "during"), calibration=IDS)

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("optimum_sleb.blocks.surgery.renumber_device_map", fail)  # the last thing before the cut
        with pytest.raises(error):
            prune()
    assert same_weights(again, pruner())
    assert again.blocks == tuple(range(NUM_BLOCKS))
    assert (again._recipe, again._report) == (None, None)
    prune()
    assert same_weights(again, searched)


@pytest.mark.long
def test_a_removal_that_turns_out_wrong_is_undone_with_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    searched, broken = pruner(), pruner()
    searched.prune(recipe(2, "during"), calibration=IDS)
    monkeypatch.setattr("optimum_sleb.blocks.forward.same_logits", lambda *_: False)
    monkeypatch.setattr("optimum_sleb.blocks.verify.reason_not_removable", lambda *_: None)
    with pytest.raises(VerificationError):
        broken.apply(searched.report, calibration=IDS)
    assert same_weights(broken, pruner())  # by then, the names of weights were those of other blocks
    assert broken.blocks == tuple(range(broken.model.config.num_hidden_layers))


@pytest.mark.long
def test_a_model_that_takes_no_fit_is_plain_sleb_and_says_so() -> None:
    def mixtral() -> SLEBPruner:
        config = MixtralConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=5,
            num_attention_heads=4,
            num_key_value_heads=2,
            num_local_experts=4,
        )
        return SLEBPruner(randomise(AutoModelForCausalLM.from_config(config)).eval())

    plain, compensated = mixtral(), mixtral()
    plain.prune(recipe(2, "no"), calibration=IDS)
    compensated.prune(recipe(2, "during"), calibration=IDS)
    assert same_weights(plain, compensated)
    assert {cut.reason for cut in compensated.report.compensation.cuts} == {
        "no module of the block writes straight to the residual stream"
    }


@pytest.mark.long
def test_the_card_tells_what_was_kept() -> None:
    one = pruner()
    one.prune(recipe(3, "during"), calibration=IDS)
    card = render_card(one.report, "me/pruned").content
    cut = next(cut for cut in one.report.compensation.cuts if cut.kept)
    assert "fitted anew, on 12 calibration windows" in card
    assert f"| {', '.join(map(str, cut.gap))} | block {cut.block}, mlp.down\\_proj |" in card
    plain = pruner()
    plain.prune(recipe(3, "no"), calibration=IDS)
    assert "fitted anew" not in render_card(plain.report, "me/pruned").content


@pytest.mark.long
def test_the_report_survives_json() -> None:
    one = pruner()
    one.prune(recipe(2, "after"), calibration=IDS)
    assert PruningReport.from_dict(json.loads(json.dumps(one.report.to_dict()))) == one.report


@pytest.mark.long
def test_a_residual_stream_more_precise_than_the_blocks(tmp_path: Path) -> None:
    tiny_of("zaya").save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    one = SLEBPruner(model)
    one.prune(recipe(2, "during", search_dtype="model"), calibration=IDS)
    assert one.report.compensation.cuts


@pytest.mark.long
@pytest.mark.parametrize("budget", [0.01, 0.05])
def test_a_budget_judges_the_compensated_model(budget: float) -> None:
    deep, budgeted, straight = pruner(), pruner(), pruner()
    deep.prune(recipe(6, "during"), calibration=IDS)
    limit = deep.report.search.loss_before + IDS.numel() * math.log(1 + budget)
    steps = deep.report.steps
    depth = next((number for number, step in enumerate(steps) if step.final_loss > limit), len(steps))
    assert any(step.loss > limit for step in steps[:depth])  # what would have ended it before it was compensated
    budgeted.prune(SLEBConfig(max_perplexity_increase=budget, compensate="during"), calibration=IDS)
    straight.prune(recipe(depth, "during"), calibration=IDS)
    assert budgeted.report.removed_blocks == straight.report.removed_blocks
    assert same_weights(budgeted, straight)  # the removal that was tried in vain left nothing behind
    told = [(step.loss, step.compensated_loss) for step in budgeted.report.steps]
    assert told == [(step.loss, step.compensated_loss) for step in straight.report.steps]


def test_a_budget_that_even_the_compensated_model_breaks_leaves_the_dense_weights() -> None:
    one = pruner()
    with pytest.raises(ConfigError, match="No block can be removed within max_perplexity_increase=1e-09"):
        recipe = SLEBConfig(max_perplexity_increase=1e-9, compensate="during", latter_barrier=NUM_BLOCKS - 2)
        one.prune(recipe, calibration=IDS)
    assert same_weights(one, pruner())
