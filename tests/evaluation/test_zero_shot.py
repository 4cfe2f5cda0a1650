"""The harness run by us against the harness run by itself, on a saved folder."""

import json
import sys
from pathlib import Path

import pytest
import yaml
from transformers import PreTrainedModel

from optimum_sleb import CalibrationError, ConfigError, SLEBPruner
from optimum_sleb.evaluation import zero_shot as module
from optimum_sleb.evaluation.evaluate import check_tasks, evaluate
from optimum_sleb.evaluation.local_tasks import local_rows
from optimum_sleb.evaluation.protocol import MEAN, paper_scores
from optimum_sleb.evaluation.zero_shot import _scores, zero_shot
from optimum_sleb.models.loading import load_model, load_tokenizer

from .. import mishaps
from .small_data import NUM_ROWS, TASKS, few_tasks, write_small_data

tasks = pytest.importorskip("lm_eval.tasks")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def few_known_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = few_tasks()
    monkeypatch.setattr(module, "task_manager", lambda: manager)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_small_data(tmp_path / "data")


def describe(data: Path, folder: Path) -> list[str]:
    """The harness's own tasks over JSON files, as its documentation says, for its own command."""
    folder.mkdir()
    harness = Path(tasks.__file__).parent
    places = {"piqa": "piqa/piqa", "winogrande": "winogrande/default", "hellaswag": "hellaswag/hellaswag"}
    places |= {"arc_easy": "arc/arc_easy", "arc_challenge": "arc/arc_challenge"}
    for task in TASKS:
        rows = folder / f"{task}.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in local_rows(task, data)))
        split = "test" if task.startswith("arc") else "validation"
        config = {
            "include": str(harness / f"{places[task]}.yaml"),
            "task": f"local_{task}",
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": {split: str(rows)}},
            **{f"{name}_split": name if name == split else None for name in ("training", "validation", "test")},
        }
        (folder / f"{task}.yaml").write_text(yaml.safe_dump(config))
    return [f"local_{task}" for task in TASKS]


@pytest.mark.long
def test_equals_the_harness_on_the_saved_folder(
    llama: PreTrainedModel, tokenizer, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.__main__ import cli_evaluate

    pruner = SLEBPruner(llama, tokenizer)
    pruner.remove([2, 3])
    pruned = pruner.save_pretrained(tmp_path / "pruned")
    names = describe(data, tmp_path / "descriptions")
    command = [
        "lm_eval",
        "--model",
        "hf",
        "--model_args",
        f"pretrained={pruned}",
        "--device",
        "cpu",
        "--batch_size",
        "4",
    ]
    command += ["--tasks", ",".join(names), "--include_path", str(tmp_path / "descriptions")]
    monkeypatch.setattr(sys, "argv", [*command, "--output_path", str(tmp_path / "results")])
    cli_evaluate()
    (file,) = (tmp_path / "results").rglob("results_*.json")
    theirs = json.loads(file.read_text())["results"]

    model, loaded = load_model(str(pruned)), load_tokenizer(str(pruned))
    scores = evaluate(model, loaded, TASKS, data_dir=data, batch_size=4)
    assert len(scores) == 9
    for score in scores:
        their = theirs[f"local_{score.task}"]
        assert score.value == their[f"{score.metric},none"]
        assert score.stderr == pytest.approx(their[f"{score.metric}_stderr,none"], abs=1e-12)
        assert score.num_examples == len(score.examples) == NUM_ROWS
    assert paper_scores(scores)[-1].task == MEAN
    assert "12 examples, 0 shots, lm-evaluation-harness" in scores[0].protocol


@pytest.mark.long
def test_of_limited_examples_and_of_what_is_no_mean(llama: PreTrainedModel, tokenizer, data: Path) -> None:
    pad_token = tokenizer.pad_token
    perplexity, accuracy = zero_shot(llama, tokenizer, "lambada_openai", limit=5, data_dir=data)
    assert accuracy.protocol.startswith("first 5 of 12 examples")
    assert (perplexity.metric, perplexity.higher_is_better, perplexity.examples) == ("perplexity", False, ())
    assert (accuracy.metric, accuracy.higher_is_better, len(accuracy.examples)) == ("acc", True, 5)
    assert tokenizer.pad_token == pad_token


@pytest.mark.long
@mishaps.kept_measurement_does_not_fit
@mishaps.measuring_is_interrupted
def test_an_interruption_loses_no_finished_task(
    llama: PreTrainedModel, tokenizer, data: Path, tmp_path: Path, interrupted
) -> None:
    wanted = ["wikitext2", "piqa", "winogrande", "c4"]
    options = {"data_dir": data, "window_length": 20, "progress_dir": tmp_path / "progress"}
    whole = evaluate(llama, tokenizer, wanted, **options | {"progress_dir": None})
    measured = interrupted(3)
    with pytest.raises(KeyboardInterrupt):
        evaluate(llama, tokenizer, wanted, **options)
    assert evaluate(llama, tokenizer, wanted, **options) == whole
    assert measured == ["wikitext2", "piqa", "winogrande", "winogrande", "c4"]
    assert evaluate(llama, tokenizer, wanted, **options) == whole
    assert len(measured) == 5
    # Another model, or other data, is measured.
    (data / "piqa" / "valid-labels.lst").write_text("0\n" * NUM_ROWS)
    evaluate(llama, tokenizer, ["piqa"], **options)
    llama.get_input_embeddings().weight.data.mul_(2)
    evaluate(llama, tokenizer, ["piqa"], **options)
    assert measured[5:] == ["piqa", "piqa"]


def test_refusals_come_before_a_model_is_loaded(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama: PreTrainedModel, tokenizer
) -> None:
    assert check_tasks(["paper", "piqa"], data) == ("wikitext2", "c4", *TASKS)
    with pytest.raises(ConfigError, match="nothing to evaluate; name at least one task"):
        check_tasks([])
    with pytest.raises(ConfigError, match="'piqqa' is no known text .*, no file, and no task of"):
        check_tasks(["piqqa"])
    with pytest.raises(CalibrationError, match="There is no file 'gone.txt'"):
        check_tasks(["gone.txt"])
    for task in ("piqa", "wikitext2", "c4"):
        with pytest.raises(CalibrationError, match=f"{task}' has no .* in .*: it is read from"):
            check_tasks([task], tmp_path)
    with pytest.raises(CalibrationError, match="The task 'piqa' cannot be run .* take its data from local files"):
        zero_shot(llama, tokenizer, "piqa")  # the Hub cannot be reached here
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(ConfigError, match=r"is not installed; install it with `pip install lm-eval`"):
        check_tasks(["piqa"])


def test_a_group_has_no_number_of_examples() -> None:
    """The harness counts examples for tasks alone."""
    results = {
        "results": {"group": {"acc,none": 0.5, "acc_stderr,none": 0.1}},
        "n-samples": {"task": {"original": 9, "effective": 4}},
        "n-shot": {"task": 0},
        "samples": {"task": []},
        "higher_is_better": {"group": {"acc": True}},
    }
    (score,) = _scores("group", results, "")
    assert (score.value, score.stderr, score.num_examples) == (0.5, 0.1, 0)
    assert score.protocol.startswith("0 shots, lm-evaluation-harness")
