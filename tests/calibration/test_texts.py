"""The published protocols, on small stand-ins for the real data sets."""

import datasets
import pytest

from optimum_sleb.calibration import texts


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Stands in for `datasets.load_dataset`, and remembers what was asked for."""
    asked = []

    def load_dataset(*arguments, data_files, split):
        asked.append((*arguments, data_files, split))
        return datasets.Dataset.from_dict({"text": [f"{split} {number}" for number in range(2000)]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_wikitext2_calibration(hub: list[tuple]) -> None:
    documents = texts.published_calibration_documents("wikitext2", num_samples=128, seed=0)
    assert hub == [("Salesforce/wikitext", "wikitext-2-raw-v1", None, "train")]
    shuffled = datasets.Dataset.from_dict({"text": [f"train {number}" for number in range(2000)]}).shuffle(seed=0)
    assert documents == shuffled["text"][:128]
    assert texts.NAMED_DATASETS["wikitext2"].separator == "\n\n"


def test_c4_calibration(hub: list[tuple]) -> None:
    documents = texts.published_calibration_documents("c4", num_samples=3, seed=1)
    assert hub == [("allenai/c4", {"train": "en/c4-train.00000-of-01024.json.gz"}, "train")]
    shuffled = datasets.Dataset.from_dict({"text": [f"train {number}" for number in range(2000)]}).shuffle(seed=1)
    assert documents == shuffled["text"][:3]
    assert texts.NAMED_DATASETS["c4"].separator == " "


def test_wikitext2_evaluation(hub: list[tuple]) -> None:
    assert texts.published_evaluation_text("wikitext2") == "\n\n".join(f"test {number}" for number in range(2000))
    assert hub[0][-1] == "test"


def test_c4_evaluation(hub: list[tuple]) -> None:
    assert texts.published_evaluation_text("c4") == " ".join(f"validation {number}" for number in range(1100))
    assert hub[0][-2:] == ({"validation": "en/c4-validation.00000-of-00008.json.gz"}, "validation")
    assert texts.NAMED_DATASETS["c4"].evaluation_windows == 256
