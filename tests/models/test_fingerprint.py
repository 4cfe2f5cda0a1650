"""A report belongs to one model's weights: told apart from other models, known again in other precisions."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from optimum_sleb import PruningReport, ReportError, SLEBConfig, SLEBPruner
from optimum_sleb.models.fingerprint import first_differing_weight, sample_weights, weights_hash
from optimum_sleb.models.loading import load_model

from ..families import FAMILIES, random_ids, tiny_model

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
IDS = random_ids(4, 20)


def report_of(model: PreTrainedModel) -> PruningReport:
    pruner = SLEBPruner(model)
    pruner.prune(SLEBConfig(num_blocks_to_remove=2), calibration=IDS)
    return pruner.report


def fine_tuned(model: PreTrainedModel, rate: float) -> PreTrainedModel:
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for _ in range(10):
        model(IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def test_a_report_is_not_applied_to_another_model_of_the_same_shape() -> None:
    report = report_of(tiny_model(seed=0))
    other = SLEBPruner(tiny_model(seed=5))
    with pytest.raises(ReportError, match=r"of another LlamaForCausalLM.* there, .* here\); load the model that"):
        other.apply(report)
    other.remove(report.removed_blocks)  # the remedy: the same blocks, without the other model's numbers
    assert other.report.perplexity_before is None


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stored", DTYPES, ids=str)
def test_a_model_is_known_again_in_every_precision(family: str, stored: torch.dtype, tmp_path: Path) -> None:
    tiny_model(family, dtype=stored).save_pretrained(tmp_path)
    loaded = [load_model(str(tmp_path), dtype=dtype) for dtype in DTYPES]
    other = [tiny_model(family, seed=5, dtype=dtype) for dtype in DTYPES]
    for record in map(sample_weights, loaded):
        assert [first_differing_weight(model, record) for model in loaded] == [None] * len(DTYPES)
        assert None not in [first_differing_weight(model, record) for model in other]


@pytest.mark.long
@pytest.mark.parametrize(("searched", "applied"), [(DTYPES[0], DTYPES[1]), (DTYPES[1], DTYPES[0])], ids=str)
def test_a_report_serves_another_precision(
    model_folder: Path, searched: torch.dtype, applied: torch.dtype, tmp_path: Path
) -> None:
    report = report_of(load_model(str(model_folder), dtype=searched))
    pruner = SLEBPruner.from_pretrained(model_folder, dtype=applied)
    pruner.apply(PruningReport.load(report.save(tmp_path)))
    assert pruner.report.weights_before == report.weights_before


# bfloat16 rounds most of a small step away, the more so on weights as large as a tiny model's.
@pytest.mark.long
@pytest.mark.parametrize(("dtype", "rate"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-4)], ids=str)
def test_a_fine_tuned_model_is_another_one(dtype: torch.dtype, rate: float) -> None:
    report = report_of(tiny_model(dtype=dtype))
    with pytest.raises(ReportError, match="of another LlamaForCausalLM"):
        SLEBPruner(fine_tuned(tiny_model(dtype=dtype), rate)).apply(report)


def test_reports_of_earlier_versions_hold_no_sample(tmp_path: Path) -> None:
    values = report_of(tiny_model()).to_dict()
    del values["weights_before"]
    (tmp_path / "sleb_report.json").write_text(json.dumps(values))
    report = PruningReport.load(tmp_path)
    assert report.weights_before is None
    SLEBPruner(tiny_model(seed=5)).apply(report)


def test_the_sample_is_of_the_weights_before_they_were_compensated() -> None:
    pruner = SLEBPruner(tiny_model())
    pruner.prune(SLEBConfig(num_blocks_to_remove=2, compensate="after"), calibration=IDS)
    assert any(cut.kept for cut in pruner.report.compensation.cuts)
    assert pruner.report.weights_before == sample_weights(tiny_model())
    SLEBPruner(tiny_model()).apply(pruner.report, calibration=IDS)


def test_every_run_samples_its_own_beginning() -> None:
    pruner = SLEBPruner(tiny_model())
    pruner.remove([2])
    pruner.remove([4])
    assert pruner.report.first_run.weights_before == sample_weights(tiny_model())
    assert not any(".5." in name for name in pruner.report.weights_before.values)
    SLEBPruner(tiny_model()).apply(pruner.report)


def test_what_is_not_at_hand_is_passed_over(llama: PreTrainedModel) -> None:
    whole = sample_weights(llama)
    llama.model.layers[2].to("meta")
    part = sample_weights(llama)
    assert 0 < len(part.values) < len(whole.values)
    assert first_differing_weight(llama, whole) is None
    assert first_differing_weight(tiny_model(), part) is None
    assert first_differing_weight(tiny_model(seed=5), part) is not None
    packed = nn.Parameter(torch.zeros(3, 4, dtype=torch.uint8), requires_grad=False)
    llama.model.layers[1].mlp.up_proj.weight = packed
    assert first_differing_weight(llama, whole) is None
    assert "model.layers.1.mlp.up_proj.weight" not in sample_weights(llama).values


def test_weights_that_are_not_finite_are_left_out(llama: PreTrainedModel, tmp_path: Path) -> None:
    with torch.no_grad():
        llama.model.norm.weight.fill_(float("nan"))
    record = sample_weights(llama)
    assert "model.norm.weight" not in record.values
    assert first_differing_weight(tiny_model(), record) is None
    assert first_differing_weight(llama, sample_weights(tiny_model())) is None
    report = replace(report_of(tiny_model()), weights_before=record)
    assert PruningReport.load(report.save(tmp_path)) == report


def test_the_hash_of_the_weights() -> None:
    assert weights_hash(tiny_model("llama")) == weights_hash(tiny_model("llama"))
    changed = tiny_model("llama")
    with torch.no_grad():
        changed.model.norm.weight[7] += 1e-3
    assert weights_hash(tiny_model("llama")) != weights_hash(changed)
