import os
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from optimum_sleb import (
    ConfigError,
    EvaluationRecord,
    PruningReport,
    PushError,
    Score,
    SLEBPruner,
    SpeedRecord,
    perplexity,
)
from optimum_sleb.evaluation.perplexity import Perplexity
from optimum_sleb.hub.card_update import add_to_report_and_card, evaluation_records, perplexity_record

from ..conftest import make_tokenizer
from ..families import tiny_model

DENSE = Perplexity("wikitext2", 21.5, 8, 128, True)
PRUNED = replace(DENSE, perplexity=33.25)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pruner = SLEBPruner(tiny_model(), make_tokenizer(add_bos=False))
    pruner.remove([2, 3])
    return pruner.save_pretrained(tmp_path / "pruned")


def test_two_perplexities_are_one_measurement() -> None:
    protocol = "8 windows of 128 tokens, each with a BOS token"
    expected = EvaluationRecord("perplexity", "wikitext2", protocol, 33.25, 21.5, num_examples=8)
    assert perplexity_record(PRUNED, DENSE) == expected
    assert perplexity_record(PRUNED).before is None


@pytest.mark.parametrize("other", [{"dataset": "c4"}, {"num_windows": 9}, {"bos_per_window": False}])
def test_what_was_measured_otherwise_does_not_compare(other: dict) -> None:
    with pytest.raises(ConfigError, match="measured in different ways .*; measure both alike"):
        perplexity_record(PRUNED, replace(DENSE, **other))


@pytest.mark.long
@pytest.mark.reliability(
    "six processes write their measurements into one folder at the same time, or two searches one journal",
    lost="nothing: the measurements wait for each other, the second search is refused at once",
)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_six_at_the_same_time(folder: Path) -> None:
    children = []
    for number in range(6):
        children.append(os.fork())
        if children[-1] == 0:
            try:
                warnings.simplefilter("ignore")
                add_to_report_and_card(folder, [perplexity_record(replace(PRUNED, num_windows=number + 1))])
                os._exit(0)
            finally:
                os._exit(1)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
    protocols = {record.protocol for record in PruningReport.load(folder).evaluations}
    assert len(protocols) == 6
    assert all(protocol in (folder / "README.md").read_text() for protocol in protocols)
    assert os.listdir(folder.parent) == [folder.name]


def test_a_model_that_was_replaced_meanwhile(folder: Path) -> None:
    measured = PruningReport.load(folder).weights_sha256
    other = SLEBPruner(tiny_model(seed=1), make_tokenizer(add_bos=False))
    other.remove([1])
    other.save_pretrained(folder, overwrite=True)
    with pytest.raises(PushError, match="was replaced while it was measured; measure the new one"):
        add_to_report_and_card(folder, [perplexity_record(PRUNED)], weights_sha256=measured)


def test_report_and_card_tell_of_it(folder: Path) -> None:
    add_to_report_and_card(folder, [perplexity_record(PRUNED)])
    report = add_to_report_and_card(folder, [perplexity_record(PRUNED, DENSE)])  # instead of the one before
    assert PruningReport.load(folder) == report
    assert report.evaluations == (perplexity_record(PRUNED, DENSE),)
    text = (folder / "README.md").read_text()
    assert "| perplexity, wikitext2 | 21.50 | 33.25 | 8 windows of 128 tokens, each with a BOS token |" in text
    assert [result.metric_value for result in ModelCard(text).data.eval_results] == [33.25]
    assert "No quality was measured" not in text
    assert not [path for path in folder.iterdir() if path.is_dir()]


def test_standard_errors_stand_in_the_card(folder: Path) -> None:
    scores = [Score("piqa", "acc_norm", value, "1,838 examples", True, 1838, 0.011) for value in (0.6, 0.68)]
    add_to_report_and_card(folder, evaluation_records(scores[:1], scores[1:]))
    text = (folder / "README.md").read_text()
    assert "| acc\\_norm, piqa | 0.6800 ± 0.0110 | 0.6000 ± 0.0110 | 1,838 examples |" in text
    (result,) = ModelCard(text).data.eval_results
    assert (result.metric_value, result.metric_args["stderr"]) == (0.6, 0.011)


def test_speeds_stand_in_report_and_card(folder: Path) -> None:
    prompt = SpeedRecord("prompt", "1 x 2,048 tokens, no cache, bfloat16 on a card", "ms", 80.0, 100.0, (79.0, 81.0))
    generation = SpeedRecord("generation", "64 x 64 tokens", "tokens/s", 5000.0, after_peak_bytes=5 * 10**6)
    add_to_report_and_card(folder, speeds=[replace(prompt, after=90.0)])
    report = add_to_report_and_card(folder, [perplexity_record(PRUNED)], [prompt, generation])
    assert PruningReport.load(folder).speeds == report.speeds == (prompt, generation)
    text = (folder / "README.md").read_text()
    protocol = "1 x 2,048 tokens, no cache, bfloat16 on a card, 1.25 times as fast"
    assert f"| prompt latency, ms | 100.00 | 80.00 | {protocol} |" in text
    assert "| generation throughput, tokens/s |  | 5,000.00 | 64 x 64 tokens |" in text
    assert "| memory at most, generation |  | 5.0 MB | 64 x 64 tokens |" in text
    assert [result.metric_value for result in ModelCard(text).data.eval_results] == [33.25]
    assert report.cut(1).speeds == ()


def test_the_card_is_what_a_fresh_evaluation_gives(folder: Path, text_file: Path) -> None:
    """What stands in the card can be measured again from the folder that carries it."""
    pruned = SLEBPruner.from_pretrained(folder)
    result = perplexity(pruned.model, pruned.tokenizer, str(text_file), window_length=20)
    add_to_report_and_card(folder, [perplexity_record(result)])
    number = f"{result.perplexity:.2f} ± {result.score().stderr:.2f}"
    text = (folder / "README.md").read_text().replace("text\\.txt", "text.txt")
    assert f"| perplexity, text.txt |  | {number} | 20 windows of 20 tokens |" in text


def test_a_folder_of_another_kind(model_folder: Path) -> None:
    with pytest.raises(PushError, match=r"holds no sleb_report\.json"):
        add_to_report_and_card(model_folder, [perplexity_record(PRUNED)])
