import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from optimum_sleb import ConfigError, HealingRecord, PruningReport, ReportError, SLEBConfig, SLEBPruner, perplexity
from optimum_sleb.blocks.stack import DecoderStack
from optimum_sleb.card.card import render_card
from optimum_sleb.card.curve_plot import draw_curve
from optimum_sleb.evaluation.curve import curve, curve_table
from optimum_sleb.report.records import StepRecord

from .. import mishaps
from ..conftest import make_text, make_tokenizer
from ..families import tiny_model
from ..report.sets import depths_of

pytestmark = pytest.mark.usefixtures("one_thread")


def search(text_file: Path, compensate: str, family: str = "llama") -> PruningReport:
    pruner = SLEBPruner(tiny_model(family), make_tokenizer(add_bos=False))
    recipe = {"window_length": 20, "dataset": str(text_file), "compensate": compensate}
    pruner.prune(SLEBConfig(num_blocks_to_remove=3, **recipe))
    return pruner.report


@pytest.mark.long
@pytest.mark.parametrize(
    ("family", "compensate"), [("llama", "no"), ("qwen3", "no"), ("llama", "during"), ("opt", "after")]
)
def test_every_depth_is_the_model_of_that_depth(family: str, compensate: str, text_file: Path, tokenizer) -> None:
    report = search(text_file, compensate, family)
    dense = tiny_model(family)
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    depths = curve(dense, tokenizer, report, str(text_file), window_length=25, repeats=1)
    assert [depth.num_removed for depth in depths] == [0, 1, 2, 3]
    for depth in depths:
        pruner = SLEBPruner(tiny_model(family), tokenizer)
        if depth.num_removed:
            pruner.apply(report, depth.num_removed)
        expected = perplexity(pruner.model, tokenizer, str(text_file), window_length=25)
        assert depth.score.value == pytest.approx(expected.perplexity, rel=1e-5)
        assert depth.score.stderr == pytest.approx(expected.score().stderr, rel=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())


def over_sets(report: PruningReport, best: tuple[tuple[int, ...], ...]) -> PruningReport:
    """The report as a search over sets would have found `best`, which need not contain one another."""
    depths = depths_of(best, report.blocks_before)
    return replace(report, depths=depths, steps=tuple(map(StepRecord, best[-1])))


@pytest.mark.long
@pytest.mark.parametrize("compensate", ["no", "during"])
def test_every_depth_skips_its_own_set(compensate: str, text_file: Path, tokenizer, monkeypatch) -> None:
    best = ((4,), (1, 3), (2, 3, 4))
    report = over_sets(search(text_file, compensate), best)
    assert PruningReport.from_dict(report.to_dict()) == report
    skipped: list[set[int]] = []
    skipping = DecoderStack.skipping
    monkeypatch.setattr(
        DecoderStack, "skipping", lambda stack, removed: skipped.append(removed) or skipping(stack, removed)
    )
    depths = curve(tiny_model(), tokenizer, report, str(text_file), window_length=25, repeats=1)
    # Each depth is measured, and timed once to warm up and once more.
    assert all(skipped.count(set(removed)) >= 3 for removed in ((), *best))
    for depth in depths[1:]:
        pruner = SLEBPruner(tiny_model(), tokenizer)
        pruner.apply(report, depth.num_removed)
        assert pruner.report.removed_blocks == best[depth.num_removed - 1]
        assert pruner.model.config.sleb["removed_blocks"] == list(best[depth.num_removed - 1])
        expected = perplexity(pruner.model, tokenizer, str(text_file), window_length=25)
        assert depth.score.value == pytest.approx(expected.perplexity, rel=1e-5)
        # The compensation of that depth, and what it costs, stand in its report.
        assert (pruner.report.compensation is not None) == (compensate == "during")
        assert (pruner.report.depths[-1].compensated_loss is not None) == (compensate == "during")
        first, *others = pruner.report.depths[-1].sets
        assert (first.held_back_loss is not None) == (compensate == "during")
        assert (replace(first, held_back_loss=None), *others) == report.depths[depth.num_removed - 1].sets


@pytest.mark.long
@pytest.mark.parametrize("compensate", ["no", "every-block"])
def test_of_a_search_over_sets(compensate: str, text_file: Path, tokenizer) -> None:
    pruner = SLEBPruner(tiny_model(), tokenizer)
    recipe = {"window_length": 20, "dataset": str(text_file), "compensate": compensate, "criterion": "kl"}
    pruner.prune(SLEBConfig(num_blocks_to_remove=3, search_space="runs", **recipe))
    report = pruner.report
    assert PruningReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    assert render_card(report, "me/small").text.count("| KL divergence") >= 1
    report.plot()
    depths = curve(tiny_model(), tokenizer, report, str(text_file), window_length=20, repeats=1)
    for number in (1, 2, 3):
        again = SLEBPruner(tiny_model(), tokenizer)
        again.apply(report, number)
        straight = SLEBPruner(tiny_model(), tokenizer)
        straight.prune(SLEBConfig(num_blocks_to_remove=number, search_space="runs", **recipe))
        assert again.report.removed_blocks == straight.report.removed_blocks  # chosen after compensation
        expected = perplexity(again.model, tokenizer, str(text_file), window_length=20)
        assert depths[number].score.value == pytest.approx(expected.perplexity, rel=1e-5)
    # The last depth is the model that the search made, with the same compensation.
    assert again.report.criterion_after == pytest.approx(report.criterion_after, rel=1e-6)
    assert torch.equal(again.model(torch.arange(3, 20)[None]).logits, pruner.model(torch.arange(3, 20)[None]).logits)


@pytest.mark.long
def test_a_set_that_cannot_go_is_found_before_anything_is_measured(text_file: Path, tokenizer) -> None:
    report = over_sets(search(text_file, "no"), ((4,), (1, 17), (2, 3, 4)))
    with pytest.raises(ConfigError, match="Block 17 cannot be removed"):
        curve(tiny_model(), tokenizer, report, str(text_file), window_length=20, repeats=1)


@pytest.mark.long
@mishaps.measuring_is_interrupted
def test_an_interruption_loses_no_finished_depth(text_file: Path, tokenizer, tmp_path: Path, interrupted) -> None:
    report = search(text_file, "no")
    measured = interrupted(3)
    options = {"window_length": 20, "repeats": 1, "progress_dir": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        curve(tiny_model(), tokenizer, report, str(text_file), **options)
    depths = curve(tiny_model(), tokenizer, report, str(text_file), **options)
    assert len(measured) == 5
    assert depths[3].score.value == pytest.approx(report.perplexity_after, rel=1e-5)
    rows = curve_table(depths).splitlines()
    assert rows[0].split() == ["blocks", "removed", "perplexity", "increase", "prompt,", "ms", "speed-up"]
    assert len(rows) == 5
    draw_curve(depths, tmp_path / "curve.png")
    assert imread(tmp_path / "curve.png").shape == (1000, 1200, 4)


@pytest.mark.long
def test_of_another_model(text_file: Path, tokenizer) -> None:
    with pytest.raises(ReportError, match="load the model that the report began with"):
        curve(tiny_model("gpt2"), tokenizer, search(text_file, "no"), str(text_file))


@pytest.mark.long
def test_an_earlier_compensation_is_not_dropped(text_file: Path, tokenizer) -> None:
    pruner = SLEBPruner(tiny_model(), tokenizer)
    for compensate in ("during", "no"):
        recipe = {"window_length": 20, "dataset": str(text_file), "compensate": compensate}
        pruner.prune(SLEBConfig(num_blocks_to_remove=1, **recipe))
    with pytest.raises(ReportError, match="pruned several times"):
        curve(tiny_model(), tokenizer, pruner.report, str(text_file), window_length=20)


@pytest.mark.long
@mishaps.kept_measurement_does_not_fit
def test_another_text_under_the_same_name_is_measured_anew(text_file: Path, tokenizer, tmp_path: Path) -> None:
    report = search(text_file, "no")
    unseen = tmp_path / "unseen.txt"
    options = {"window_length": 20, "repeats": 1, "progress_dir": tmp_path / "kept"}
    values = []
    for seed in (1, 2):
        unseen.write_text(make_text(100, seed=seed))
        depths = curve(tiny_model(), tokenizer, report, str(unseen), **options)
        values.append([depth.score.value for depth in depths])
    assert not set(values[0]) & set(values[1])


@pytest.mark.long
def test_of_a_model_that_was_fine_tuned_between_two_runs(text_file: Path, tokenizer) -> None:
    first = replace(search(text_file, "no"), healing=(HealingRecord("full fine-tuning", "text", 1, 1.0),))
    second = replace(first, previous=first, healing=())
    third = replace(second, previous=second)
    assert not first.healed_between_runs
    for report in (second, third):
        with pytest.raises(ReportError, match="fine-tuned between two runs"):
            curve(tiny_model(), tokenizer, report, str(text_file))
