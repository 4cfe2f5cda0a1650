import json
from dataclasses import replace
from pathlib import Path

import pytest

from optimum_sleb import OutputFolderError, Score
from optimum_sleb.evaluation.evaluate import conditions_of
from optimum_sleb.evaluation.store import MeasurementStore

from .. import mishaps
from ..families import tiny_model
from .test_scores import DENSE

KIND = tuple[Score, ...]


def never() -> tuple[Score, ...]:
    raise AssertionError("measured again")


def test_what_was_measured_is_kept(tmp_path: Path) -> None:
    store = MeasurementStore(tmp_path / "progress")
    assert store.get_or_measure("piqa", {"limit": 4}, KIND, lambda: (DENSE,)) == (DENSE,)
    assert MeasurementStore(tmp_path / "progress").get_or_measure("piqa", {"limit": 4}, KIND, never) == (DENSE,)
    assert len(list((tmp_path / "progress").iterdir())) == 1


@mishaps.kept_measurement_does_not_fit
def test_under_other_conditions_it_is_measured(tmp_path: Path) -> None:
    store, other = MeasurementStore(tmp_path), replace(DENSE, value=0.1)
    store.get_or_measure("/texts/a b.txt", {"limit": 4}, KIND, lambda: (DENSE,))
    assert store.get_or_measure("/texts/a b.txt", {"limit": 5}, KIND, lambda: (other,)) == (other,)
    assert all(file.name.startswith("a-b.txt-") for file in tmp_path.iterdir())


@mishaps.kept_measurement_does_not_fit
@pytest.mark.parametrize("content", ["", "{", "[]", '{"conditions": {"limit": 4}, "result": 5}', "NaN"])
def test_what_is_damaged_is_measured_again(tmp_path: Path, content: str) -> None:
    store = MeasurementStore(tmp_path)
    store.get_or_measure("piqa", {"limit": 4}, KIND, lambda: (DENSE,))
    (file,) = tmp_path.iterdir()
    file.write_text(content)
    assert store.get_or_measure("piqa", {"limit": 4}, KIND, lambda: (DENSE,)) == (DENSE,)
    assert store.get_or_measure("piqa", {"limit": 4}, KIND, never) == (DENSE,)


def test_nowhere_and_where_nothing_can_be_written(tmp_path: Path) -> None:
    assert MeasurementStore(None).get_or_measure("piqa", {}, KIND, lambda: (DENSE,)) == (DENSE,)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputFolderError, match="cannot be written .*; choose another folder"):
        MeasurementStore(tmp_path / "file").get_or_measure("piqa", {}, KIND, lambda: (DENSE,))


def test_another_config_is_another_model(tokenizer) -> None:
    """The weights alone do not tell: models may differ in their rotary embeddings only."""
    model = tiny_model()
    before = conditions_of(model, tokenizer)
    assert conditions_of(tiny_model(), tokenizer) == before
    model.config.rope_parameters["rope_theta"] = 50.0
    assert conditions_of(model, tokenizer) != before


def test_what_else_decides_what_is_generated(tokenizer) -> None:
    model = tiny_model()
    kept = [conditions_of(model, tokenizer)]
    tokenizer.chat_template = "{{ messages[0].content }}"
    kept.append(conditions_of(model, tokenizer))
    model.generation_config.repetition_penalty = 1.5
    kept.append(conditions_of(model, tokenizer))
    assert len({json.dumps(one, sort_keys=True) for one in kept}) == 3
