"""A criterion of one's own: every way to search makes the same decisions by it, and what is no loss is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from optimum_sleb import ConfigError, CriterionError, PruningReport, SLEBConfig, SLEBPruner
from optimum_sleb.blocks.criterion import Batch, Criterion, Tail
from optimum_sleb.blocks.forward import logits_of
from optimum_sleb.blocks.losses import position_slices
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.errors import JournalError, ReportError
from optimum_sleb.report.folder import JOURNAL_FILE_NAME
from optimum_sleb.search.batch_size import choose_batch_size
from optimum_sleb.search.criterion import FunctionCriterion, choose_criterion
from optimum_sleb.search.exact import ExactLosses
from optimum_sleb.search.reference import ReferenceLosses

from .. import criteria
from ..families import FAMILIES, NUM_BLOCKS, VOCAB_SIZE, random_ids, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")
IDS = [*random_ids(7, 20), *random_ids(4, 11)]
MARGIN = "tests.criteria:margin"


def prune(criterion: Any = None, arguments: dict[str, Any] | None = None, **recipe: Any) -> SLEBPruner:
    pruner = SLEBPruner(tiny_model())
    config = SLEBConfig(**{"num_blocks_to_remove": 3} | recipe)
    pruner.prune(config, calibration=IDS, criterion=criterion, **arguments or {})
    return pruner


def losses_of(report: PruningReport) -> list[dict[int, float]]:
    return [step.candidate_losses for step in report.steps]


@pytest.fixture(scope="module")
def slow() -> PruningReport:
    return prune(criteria.loudness, search="reference").report


WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "exact": ({}, {}),
    "exact, one window at a time": ({"batch_size": 1}, {}),
    "racing": ({"search": "racing", "racing_confidence": 1e9}, {}),
    "offloaded": ({}, {"device": "cpu", "offload": "cpu"}),
}


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_every_search_decides_as_the_reference(slow: PruningReport, way: str) -> None:
    recipe, arguments = WAYS[way]
    report = prune("tests.criteria:loudness", arguments, **recipe).report
    assert report.removed_blocks == slow.removed_blocks != prune().report.removed_blocks
    for measured, expected in zip(losses_of(report), losses_of(slow), strict=True):
        assert measured == pytest.approx(expected, rel=1e-5)
    assert report.search.loss_before == pytest.approx(slow.search.loss_before, rel=1e-5)


@pytest.mark.parametrize("family", [pytest.param(name, marks=pytest.mark.long) for name in FAMILIES])
def test_families(family: str) -> None:
    model, windows = tiny_model(family), TokenWindows(tuple(IDS))
    stack, criterion = find_decoder_stack(model), choose_criterion(MARGIN, None)
    alive = [0, 1, 3, 4, 5]
    fast = ExactLosses(model, stack, windows, 3, criterion=criterion).measure(alive, [1, 4]).matrix
    slow = ReferenceLosses(model, stack, windows, criterion=criterion).measure(alive, [1, 4]).matrix
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("search", ["exact", "reference", pytest.param("racing", marks=pytest.mark.long)])
def test_cross_entropy_computed_again_gives_the_published_decisions(search: str) -> None:
    own, published = prune(criteria.cross_entropy, search=search).report, prune(search=search).report
    assert own.removed_blocks == published.removed_blocks
    for measured, expected in zip(losses_of(own), losses_of(published), strict=True):
        assert measured == pytest.approx(expected, rel=1e-6)


@pytest.mark.long
def test_compensation_judges_by_the_criterion_and_is_repeated_with_it(slow: PruningReport) -> None:
    deep = prune(criteria.gain, compensate="during")
    assert all(step.compensated_loss < 0 for step in deep.report.steps)
    shallow = prune(criteria.gain, compensate="during", num_blocks_to_remove=2)
    applied = SLEBPruner(tiny_model())
    with pytest.raises(ReportError, match=r"pass that function \(criterion=\)"):
        applied.apply(deep.report, 2, calibration=IDS)
    applied.apply(deep.report, 2, calibration=IDS, criterion=criteria.gain)
    assert applied.report.criterion_after == shallow.report.criterion_after


class KLToDense(Criterion):
    """What a later criterion will need: something stored of each window, and logits in parts."""

    name = "kl"

    def __init__(self, model: Any, windows: TokenWindows) -> None:
        self.dense = {self.key(ids): logits_of(model, ids[None])[0].log_softmax(-1) for ids in windows.windows}

    @staticmethod
    def key(ids: Tensor) -> bytes:
        return ids.numpy().tobytes()

    def of_part(self, logits: Tensor, part: slice, batch: Batch) -> Tensor:
        dense = torch.stack([self.dense[self.key(ids)][part] for ids in batch.ids])
        return (dense.exp() * (dense - logits.log_softmax(-1))).sum(dim=(1, 2))

    def of_hidden(self, tail: Tail, hidden: Tensor, batch: Batch) -> Tensor:
        parts = position_slices(batch.targets, VOCAB_SIZE, max_logits=3 * VOCAB_SIZE)
        made = [self.of_part(tail.logits(hidden[:, part], batch.ids[:, part]), part, batch) for part in parts]
        assert len(made) > 1
        return torch.stack(made).sum(dim=0)

    def of_model(self, model: Any, batch: Batch) -> Tensor:
        return self.of_part(logits_of(model, batch.ids), slice(None), batch)


@torch.no_grad()
def test_a_criterion_with_stored_data_and_parts_of_the_logits_fits() -> None:
    model, windows = tiny_model(), TokenWindows(tuple(IDS))
    stack, kl = find_decoder_stack(model), KLToDense(model, windows)
    fast = ExactLosses(model, stack, windows, 3, criterion=kl)
    slow = ReferenceLosses(model, stack, windows, criterion=kl)
    assert fast.losses_of(range(NUM_BLOCKS)).abs().max() < 1e-4  # the dense model is as far from itself
    measured, expected = fast.measure(range(NUM_BLOCKS), [1, 2, 4]).matrix, slow.measure(range(NUM_BLOCKS), [1, 2, 4])
    torch.testing.assert_close(measured, expected.matrix, rtol=1e-4, atol=1e-4)


def test_whole_logits_are_left_room(monkeypatch: pytest.MonkeyPatch) -> None:
    model, windows = tiny_model(), TokenWindows(tuple(random_ids(8, 20)))
    monkeypatch.setattr("optimum_sleb.search.batch_size.MAX_LOGITS", 3 * 20 * VOCAB_SIZE)
    losses = ExactLosses(model, find_decoder_stack(model), windows)
    assert choose_batch_size(losses, 4) == 8
    losses.criterion = choose_criterion(MARGIN, None)
    assert choose_batch_size(losses, 4) == 2  # it divides 8, 3 does not


@pytest.mark.long
def test_memory_that_runs_out_in_a_criterion_halves_the_batch() -> None:
    sizes = []

    def hungry(logits: Tensor, batch: Any) -> Tensor:
        sizes.append(len(logits))
        if len(logits) > 2:
            raise torch.OutOfMemoryError
        return criteria.margin(logits, batch)

    assert prune(hungry, batch_size=7).report.removed_blocks == prune(MARGIN).report.removed_blocks
    assert max(sizes) == 7
    assert sizes[-1] <= 2


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "a scalar": (criteria.scalar, CriterionError, r"shape \(7,\); got float32 of shape \(\)"),
    "whole numbers": (criteria.counts, CriterionError, r"floating-point tensor .* got int64 of shape \(7,\)"),
    "NaN of finite logits": (criteria.undefined, CriterionError, "it made nan of finite logits"),
    "a number": (criteria.number, CriterionError, "got 0.5"),
    "an error": (criteria.broken, CriterionError, r"tests.criteria:broken failed \(KeyError: 'a\\nb'\); mend it"),
    "no function": (3, ConfigError, "criterion must be a function"),
    "not there": ("tests.criteria:nothing", CriterionError, r"cannot be imported \(AttributeError"),
    "no module": ("nowhere.at_all:f", CriterionError, r"cannot be imported \(ModuleNotFoundError"),
    "not callable": ("tests.criteria:NOT_CALLABLE", CriterionError, "is no function but of type int"),
    "no colon": ("margin", ConfigError, "as 'org.module:function'; got 'margin'"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refusals(what: str) -> None:
    criterion, kind, message = REFUSED[what]
    pruner = SLEBPruner(tiny_model())
    with pytest.raises(kind, match=message) as error:
        pruner.prune(SLEBConfig(num_blocks_to_remove=1, batch_size=7), calibration=IDS, criterion=criterion)
    assert "\n" not in str(error.value)
    assert len(pruner.blocks) == NUM_BLOCKS


def test_a_loss_of_logits_that_are_not_finite_need_not_be_finite() -> None:
    logits, (batch,) = torch.full((2, 20, VOCAB_SIZE), torch.nan), TokenWindows(tuple(random_ids(2, 20))).batches(2)
    criterion = FunctionCriterion(criteria.undefined, "undefined")
    assert criterion._losses(logits, batch).isnan().all()


def test_a_budget_of_perplexity_is_refused() -> None:
    with pytest.raises(ConfigError, match="make no perplexity, so max_perplexity_increase cannot bound it"):
        SLEBConfig(max_perplexity_increase=0.1, criterion=MARGIN)
    with pytest.raises(ConfigError, match="make no perplexity"):
        prune(criteria.margin, num_blocks_to_remove=None, max_perplexity_increase=0.1)


def test_two_criteria_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"names criterion='tests.criteria:margin', and 'tests.criteria:gain' was"):
        SLEBPruner(tiny_model()).prune(
            SLEBConfig(num_blocks_to_remove=1, criterion=MARGIN), calibration=IDS, criterion=criteria.gain
        )


def make(scale: float) -> Callable[[Tensor, Any], Tensor]:
    return lambda logits, batch: scale * criteria.margin(logits, batch)


class TestRecords:
    def test_names(self) -> None:
        report = prune(criteria.gain).report
        assert report.recipe.criterion == report.criterion == report.search.criterion == "tests.criteria:gain"
        assert report.perplexity_before is report.perplexity_after is None
        assert report.criterion_before == pytest.approx(report.search.loss_before / len(IDS))
        assert report.criterion_after == pytest.approx(report.steps[-1].loss / len(IDS))
        assert report.criterion_after < 0
        assert PruningReport.from_dict(report.to_dict()) == report
        before, after = report.criterion_before, report.criterion_after
        assert f"calibration criterion{before:15.4g}{after:12.4g}" in report.summary()
        assert "criterion: tests.criteria:gain, the mean loss of a window; lower is better" in report.summary()
        assert "perplexity" not in report.summary()

    def test_cross_entropy_has_no_negative_loss(self) -> None:
        report = prune(criteria.gain).report
        values = report.to_dict()
        values["search"]["criterion"] = None
        with pytest.raises(ReportError, match="a loss of search, steps or depths must be at least 0; got -"):
            PruningReport.from_dict(values)

    def test_margins_of_negative_losses(self) -> None:
        step = replace(prune(criteria.gain).report.steps[0], block=1, candidate_losses={1: -4.0, 2: -3.0})
        assert step.margin == pytest.approx(0.25)

    @pytest.mark.long
    def test_a_function_in_memory(self) -> None:
        assert prune(make(2.0)).report.criterion == "tests.search.test_criterion:make.<locals>.<lambda>"
        assert prune(Weighted()).report.criterion == "tests.search.test_criterion:Weighted"


class Weighted:
    def __call__(self, logits: Tensor, batch: Any) -> Tensor:
        return 2 * criteria.margin(logits, batch)


class TestJournal:
    @pytest.mark.long
    @pytest.mark.parametrize("first", [None, MARGIN])
    @pytest.mark.parametrize("second", [None, MARGIN, "tests.criteria:gain"])
    def test_of_another_criterion_is_refused(self, first: str | None, second: str | None, tmp_path: Path) -> None:
        once = prune(first, {"progress_dir": tmp_path}, batch_size=4).report
        resume = {"progress_dir": tmp_path, "resume": True}
        if first == second:
            assert losses_of(prune(second, resume, batch_size=4).report) == losses_of(once)
        else:
            with pytest.raises(JournalError, match=r"is of another run: .*criterion"):
                prune(second, resume, batch_size=4)

    @pytest.mark.long
    def test_of_other_code_by_the_same_name_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def margin(logits: Tensor, batch: Any) -> Tensor:
            return criteria.margin(logits, batch) ** 2

        prune(MARGIN, {"progress_dir": tmp_path})
        margin.__module__, margin.__qualname__ = "tests.criteria", "margin"
        with pytest.raises(JournalError, match="is of another run: criterion_source is '"):
            prune(margin, {"progress_dir": tmp_path, "resume": True})

    @pytest.mark.long
    def test_begun_before_there_were_criteria(self, tmp_path: Path) -> None:
        from optimum_sleb.search.journal import seal, unseal

        expected = prune(None, {"progress_dir": tmp_path}).report
        journal = tmp_path / JOURNAL_FILE_NAME
        header, *lines = journal.read_bytes().splitlines()
        values = unseal(header)
        del values["criterion_source"], values["recipe"]["criterion"]
        journal.write_bytes(b"\n".join([seal(values).encode(), *lines, b""]))
        resumed = prune(None, {"progress_dir": tmp_path, "resume": True}).report
        assert losses_of(resumed) == losses_of(expected)
