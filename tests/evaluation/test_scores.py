import json
import math
from dataclasses import asdict, replace

import pytest
import torch

from optimum_sleb import ConfigError, EvaluationRecord, PruningReport, Score
from optimum_sleb.evaluation.perplexity import Perplexity
from optimum_sleb.evaluation.protocol import MEAN, ZERO_SHOT, paper_scores
from optimum_sleb.evaluation.scores import difference_stderr, mean_score, record_of, standard_error
from optimum_sleb.evaluation.table import score_table

from ..report.test_report import make_report

DENSE = Score("piqa", "acc_norm", 0.75, "4 examples", True, 4, 0.25, (1.0, 1.0, 0.0, 1.0))
PRUNED = replace(DENSE, value=0.5, stderr=0.29, examples=(1.0, 0.0, 0.0, 1.0))


def test_errors_of_differences_are_taken_example_by_example() -> None:
    assert difference_stderr(PRUNED, DENSE) == standard_error([0.0, -1.0, 0.0, 0.0]) == 0.25
    assert difference_stderr(replace(PRUNED, examples=()), DENSE) == math.hypot(0.29, 0.25)
    assert difference_stderr(replace(PRUNED, examples=(), stderr=None), DENSE) is None


def test_error_of_a_perplexity_is_that_of_a_resampled_one() -> None:
    losses = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.3 + 2
    score = Perplexity("c4", losses.mean().exp().item(), 200, 64, False, tuple(losses.tolist())).score()
    samples = losses[torch.randint(200, (4000, 200), generator=torch.Generator().manual_seed(1))]
    assert score.stderr == pytest.approx(samples.mean(1).exp().std().item(), rel=0.05)


def test_the_mean_of_the_five() -> None:
    scores = [replace(DENSE, task=task, metric=metric) for task in ZERO_SHOT for metric in ("acc", "acc_norm")]
    scores = [score for score in scores if (score.task, score.metric) != ("winogrande", "acc_norm")]
    *five, mean = paper_scores(scores)
    assert {score.task: score.metric for score in five} == ZERO_SHOT
    assert (mean.task, mean.value, mean.num_examples) == (MEAN, 0.75, 20)
    assert mean.stderr == pytest.approx(0.25 / math.sqrt(5))
    others = [replace(score, value=0.5, examples=PRUNED.examples) for score in scores]
    assert difference_stderr(paper_scores(others)[-1], mean) == pytest.approx(0.25 / math.sqrt(5))
    assert [score.task for score in paper_scores(scores[:2])] == ["piqa"]
    assert mean_score("", [replace(DENSE, stderr=None)], "").stderr is None


def test_one_measurement_of_two_scores() -> None:
    assert record_of(PRUNED, DENSE) == EvaluationRecord(
        *("acc_norm", "piqa", "4 examples", 0.5, 0.75),
        after_stderr=0.29,
        before_stderr=0.25,
        difference_stderr=0.25,
        num_examples=4,
    )
    with pytest.raises(ConfigError, match="measured in different ways .*; measure both alike"):
        record_of(PRUNED, replace(DENSE, num_examples=5))
    with pytest.raises(ValueError, match="is nan, which is no result"):
        record_of(replace(PRUNED, stderr=math.nan))


def test_reports_of_before_still_load() -> None:
    report = replace(make_report(), evaluations=(record_of(PRUNED, DENSE),))
    values = json.loads(json.dumps(report.to_dict()))
    assert PruningReport.from_dict(values) == report
    values["evaluations"] = [
        {"metric": "perplexity", "dataset": "c4", "protocol": "2 windows", "after": 9.0, "before": 7.0}
    ]
    (old,) = PruningReport.from_dict(values).evaluations
    assert asdict(old)["after_stderr"] is None


def test_tables() -> None:
    perplexity = Score("wikitext2", "perplexity", 33.7, "8 windows", False, 8)
    assert score_table([PRUNED, perplexity], [DENSE]).splitlines() == [
        "task       metric              dense         pruned      difference",
        "piqa       acc_norm    0.750 ± 0.250  0.500 ± 0.290  -0.250 ± 0.250",
        "wikitext2  perplexity                         33.70",
    ]
    assert score_table([perplexity]).splitlines()[1] == "wikitext2  perplexity  33.70"
