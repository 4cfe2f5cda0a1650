import json
from dataclasses import replace
from pathlib import Path

import pytest

from optimum_sleb import EvaluationRecord, PruningReport, ReportError, SLEBConfig
from optimum_sleb.report.records import CalibrationRecord, SearchRecord, StepRecord, TargetRecord

from ..hub.local_hub import Commit, LocalHub, Repository


def make_report(removed: tuple[int, ...] = (2, 4, 1), previous: PruningReport | None = None) -> PruningReport:
    before = tuple(range(8)) if previous is None else previous.blocks_after
    alive = list(before)
    steps = []
    for block in removed:
        losses = {candidate: 100.0 + candidate for candidate in alive[1:-1]} | {block: 90.0}
        steps.append(StepRecord(block, losses, seconds=1.5))
        alive.remove(block)
    return PruningReport(
        base_model="me/dense",
        architecture="LlamaForCausalLM",
        original_num_blocks=8,
        blocks_before=before,
        parameters_before=1000,
        parameters_after=700,
        steps=tuple(steps),
        seconds=4.5,
        created="2026-11-22T12:00:00+00:00",
        versions={"torch": "2.13.0"},
        recipe=SLEBConfig(num_blocks_to_remove=len(removed)),
        calibration=CalibrationRecord("wikitext2", 2, 40, 20, False, "ab" * 32),
        search=SearchRecord("exact", "agrees", "float32", "cpu", 123, 80.0),
        previous=previous,
    )


def test_round_trip(tmp_path: Path) -> None:
    report = make_report((5, 3), previous=make_report((2, 4)))
    assert PruningReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    path = report.save(tmp_path)
    assert PruningReport.load(path) == PruningReport.load(tmp_path) == report


def test_limits_and_target_are_kept_and_told() -> None:
    target = TargetRecord("max_parameters", 800, 1000, 700, "the parameters")
    recipe = SLEBConfig(max_parameters="800", candidate_blocks="1-4")
    report = replace(make_report(), recipe=recipe, target=target)
    assert PruningReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    assert "the only candidates: blocks 1-4\n" in report.summary()
    assert "target max_parameters=800: 1,000 before, 700 after (the parameters)\n" in report.summary()
    assert report.cut(3).target == target
    assert report.cut(2).target is None


def test_blocks_over_two_runs() -> None:
    report = make_report((5, 3), previous=make_report((2, 4)))
    assert report.removed_blocks == (2, 4, 5, 3)
    assert report.blocks_before == (0, 1, 3, 5, 6, 7)
    assert report.blocks_after == (0, 1, 6, 7)
    assert report.first_run == make_report((2, 4))


def test_a_cut_is_another_model() -> None:
    measured = EvaluationRecord("perplexity", "c4", "2 windows", 9.0, before=7.0)
    report = replace(make_report(), evaluations=(measured,), size_on_disk=5, weights_sha256="ab")
    assert PruningReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    cut = report.cut(3)
    assert (cut.evaluations, cut.size_on_disk, cut.weights_sha256) == ((), None, None)


def test_perplexities() -> None:
    report = make_report()
    assert report.perplexity_before == pytest.approx(2.718281828**2)  # exp(80 / 40)
    assert report.perplexity_after == pytest.approx(2.718281828**2.25)
    assert replace(report, search=None, calibration=None).perplexity_before is None
    by_order = replace(report, steps=(StepRecord(2),))
    assert by_order.perplexity_after is None


def test_cuts() -> None:
    report = make_report((5, 3), previous=make_report((2, 4)))
    assert [report.cut(number).removed_blocks for number in (1, 2, 3, 4)] == [
        (2,),
        (2, 4),
        (2, 4, 5),
        (2, 4, 5, 3),
    ]
    for number in (0, 5):
        with pytest.raises(ReportError, match=f"must remove between 1 and 4 blocks; got {number}"):
            report.cut(number)


def test_summary() -> None:
    assert make_report().summary().splitlines() == [
        "                              before       after",
        "blocks                             8           5",
        "parameters                     0.0 M       0.0 M",
        "calibration perplexity          7.39        9.49",
        "removed, in order: 2 4 1",
        "closest decision: block 2, the next best had a loss 12.22% higher",
    ]


def test_the_divergence_and_the_perplexity_are_both_told() -> None:
    report = make_report()
    search = replace(report.search, criterion="kl", loss_before=0.0, perplexity_before=7.4, perplexity_after=11.25)
    report = replace(report, search=search)
    assert (report.perplexity_before, report.perplexity_after) == (7.4, 11.25)
    assert (report.criterion_before, report.criterion_after) == (0.0, 90 / 40)
    assert report.summary().splitlines()[3:6] == [
        "calibration KL                0.0000      2.2500",
        "calibration perplexity          7.40       11.25",
        "criterion: KL divergence from the dense model, in nats a token, the mean over predictions; lower is better",
    ]
    assert repr(report).endswith("removed 2 4 1, calibration perplexity 7.40 -> 11.25)")
    assert PruningReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    # Of another depth it was not measured.
    assert report.cut(3).perplexity_after == 11.25
    cut = report.cut(2)
    assert (cut.perplexity_before, cut.perplexity_after, cut.criterion_after) == (7.4, None, 90 / 40)
    assert "calibration perplexity" not in cut.summary()
    assert make_report().cut(2).search == make_report().search


def test_a_later_run_measures_the_divergence_from_the_model_it_began_with() -> None:
    report = make_report((5, 3), previous=make_report((2, 4)))
    report = replace(report, search=replace(report.search, criterion="kl"))
    assert report.metric == "KL divergence from the model before"
    assert "criterion: KL divergence from the model before, in nats a token" in report.summary()
    assert make_report().metric == "perplexity"


def test_the_closest_decision() -> None:
    steps = (
        StepRecord(2, {1: 11.0, 2: 10.0, 3: 10.5}),
        StepRecord(3, {1: 12.0, 3: 11.9}),
        StepRecord(1, {1: 14.0, 4: 13.0, 5: 20.0}, barred_blocks={4: "it stays"}),
        StepRecord(5, {5: 20.0}),
    )
    block, gap = replace(make_report(), steps=steps).closest_decision
    assert block == 3
    assert gap == pytest.approx(12.0 / 11.9 - 1)
    assert replace(make_report(), steps=(StepRecord(2),)).closest_decision is None


def test_what_was_not_finite_is_told() -> None:
    steps = (StepRecord(2, {1: 11.0, 2: 10.0}, non_finite_blocks={3: 7, 4: 0}),)
    summary = replace(make_report(), steps=steps).summary()
    assert "the loss was NaN or infinite without block 3, 4, which thus stayed" in summary


def test_files_are_not_trusted(tmp_path: Path) -> None:
    good = make_report().to_dict()
    path = tmp_path / "sleb_report.json"
    deep = "[" * 100_000
    for content, message in [
        ("{", "is not valid JSON"),
        (deep, "is not valid JSON"),
        ("[]", "must be a JSON object; got list"),
        (json.dumps(good | {"colour": 1}), "has the unknown key 'colour'"),
        (json.dumps({name: value for name, value in good.items() if name != "steps"}), "lacks the key 'steps'"),
        (json.dumps(good | {"seconds": "4"}), "the report.seconds must be float; got '4'"),
        (json.dumps(good | {"steps": [{"block": "2"}]}), "the report.steps[0].block must be int; got '2'"),
        (json.dumps(good | {"recipe": {"sparsity": 3.0}}), "sparsity must lie strictly between 0 and 1"),
        (json.dumps(good | {"steps": [{"block": 2, "candidate_losses": {"x": 1.0}}]}), "a key of"),
    ]:
        path.write_text(content)
        with pytest.raises(ReportError) as error:
            PruningReport.load(tmp_path)
        assert message in str(error.value), content[:80]
    with pytest.raises(ReportError, match="There is no report at"):
        PruningReport.load(tmp_path / "nowhere")


def test_one_line() -> None:
    report = make_report((5, 3), previous=make_report((2, 4)))
    assert repr(report) == (
        "PruningReport(me/dense, 6 -> 4 blocks, removed 2 4 5 3, calibration perplexity 7.39 -> 9.49)"
    )
    by_order = replace(make_report((2,)), base_model=None, steps=(StepRecord(2),), search=None, calibration=None)
    assert repr(by_order) == "PruningReport(LlamaForCausalLM, 8 -> 7 blocks, removed 2)"


def test_from_the_hub(hub: LocalHub, tmp_path: Path) -> None:
    report, file = make_report(), make_report().save(tmp_path)
    hub.repositories["me/small"] = Repository(False, {"main": [Commit({}), Commit({file.name: file.read_bytes()})]})
    assert PruningReport.from_pretrained("me/small") == PruningReport.from_pretrained(tmp_path) == report
    asked = len(hub.requests)
    assert PruningReport.from_pretrained("me/small", local_files_only=True) == report
    assert len(hub.requests) == asked
    assert PruningReport.from_pretrained("me/small", revision="main", cache_dir=tmp_path / "elsewhere") == report
    assert (tmp_path / "elsewhere" / "models--me--small").is_dir()
