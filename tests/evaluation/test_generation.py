"""Tasks that are answered by generated text: the chat template where there is one, and every way to read an answer."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from optimum_sleb.evaluation import zero_shot as module
from optimum_sleb.evaluation.zero_shot import zero_shot

from ..calibration.chatting import chat_tokenizer
from ..conftest import make_tokenizer
from ..families import tiny_model

tasks = pytest.importorskip("lm_eval.tasks")
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.long]


@pytest.fixture(params=["generate_until", "multiple_choice"])
def kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A task of a kind over a local file, described as those of the harness are."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"question": f"w{3 + row}", "answer": "w9"}) + "\n" for row in range(4)))
    config: dict[str, Any] = {
        "task": "small",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(rows)}},
        "test_split": "test",
        "output_type": request.param,
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
    }
    if request.param == "generate_until":
        config["metric_list"] = [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]
        config["generation_kwargs"] = {"until": ["</s>"], "do_sample": False, "max_gen_toks": 4}
        config["filter_list"] = [
            {"name": name, "filter": [{"function": "regex", "regex_pattern": pattern}, {"function": "take_first"}]}
            for name, pattern in (("strict", "(w9)"), ("flexible", "(w[0-9]+)"))
        ]
    else:
        config["doc_to_choice"] = ["w9", "w10"]
        config["doc_to_target"] = 0
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "small.yaml").write_text(yaml.safe_dump(config))
    manager = tasks.TaskManager(include_defaults=False, include_path=str(tmp_path / "tasks"))
    monkeypatch.setattr(module, "task_manager", lambda: manager)
    return request.param


@pytest.mark.parametrize("has_template", [True, False])
def test_the_chat_template_is_used_where_text_is_generated(kind: str, has_template: bool) -> None:
    tokenizer = chat_tokenizer() if has_template else make_tokenizer(add_bos=False)
    scores = zero_shot(tiny_model(), tokenizer, "small")
    is_chat = has_template and kind == "generate_until"
    assert {"chat template" in score.protocol for score in scores} == {is_chat}
    assert {score.num_examples for score in scores} == {4}
    if kind == "generate_until":
        assert [score.metric for score in scores] == ["exact_match (strict)", "exact_match (flexible)"]
