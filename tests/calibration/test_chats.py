"""Chats and completions, against what TRL's SFTTrainer makes of the same rows, and against tokenising by hand."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from optimum_sleb import CalibrationError, SLEBConfig
from optimum_sleb.calibration.sources import load_calibration

from ..conftest import make_text
from ..families import tiny_model
from .chatting import MARKED, UNMARKED, chat, chat_tokenizer

TEXT = [make_text(6 + number, seed=number) for number in range(3)]
ANSWERS = [" " + make_text(3 + number, seed=50 + number) for number in range(3)]
TOOLS = [{"name": "w40", "parameters": {}}, {"name": "w41", "parameters": {}}]
# Rows as people keep them, and the options by which SFTTrainer makes the same labels of them.
ROWS: dict[str, tuple[list[dict[str, Any]], bool]] = {
    "messages": ([{"messages": chat(seed)} for seed in range(3)], True),
    "one turn": ([{"messages": chat(seed, turns=1)} for seed in range(3)], True),
    "a system's message": (
        [{"messages": [{"role": "system", "content": "w9 w10"}, *chat(seed)]} for seed in range(3)],
        True,
    ),
    "tools": ([{"messages": chat(seed), "tools": TOOLS} for seed in range(3)], True),
    "tools as JSON": ([{"messages": chat(seed), "tools": json.dumps(TOOLS)} for seed in range(3)], True),
    "options of the template": (
        [{"messages": chat(seed), "chat_template_kwargs": {"style": "w50"}} for seed in range(3)],
        True,
    ),
    "longer than a window": ([{"messages": chat(seed, turns=5)} for seed in range(3)], True),
    "prompt and completion": ([{"prompt": a, "completion": b} for a, b in zip(TEXT, ANSWERS, strict=True)], False),
    "a completion with its end": (
        [{"prompt": a, "completion": f"{b} </s>"} for a, b in zip(TEXT, ANSWERS, strict=True)],
        False,
    ),
    "an empty completion": ([{"prompt": a, "completion": ""} for a in TEXT], False),
    "chats of prompt and completion": (
        [{"prompt": chat(seed)[:3], "completion": chat(seed)[3:]} for seed in range(3)],
        False,
    ),
    "prompt and completion longer than a window": (
        [{"prompt": make_text(30, seed=1), "completion": " " + make_text(30, seed=2)}] * 2,
        False,
    ),
}
LONGEST = 40


def in_sharegpt(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The form that TRL turns into messages."""
    return [
        {"conversations": [{"from": one["role"], "value": one["content"]} for one in row["messages"]]} for row in rows
    ]


def loaded_from(rows: Any, tokenizer: Any, loss: str, **values: Any) -> Any:
    return load_calibration(rows, tokenizer, SLEBConfig(sparsity=0.2, window_length=LONGEST, loss=loss, **values))


def by_trl(rows: list[dict[str, Any]], tokenizer: Any, folder: Path, **options: Any) -> list[tuple[list, list]]:
    """The token ids and labels of the batches that SFTTrainer evaluates on, without padding."""
    trl = pytest.importorskip("trl")
    args = trl.SFTConfig(
        output_dir=str(folder), max_length=LONGEST, use_cpu=True, bf16=False, report_to="none", **options
    )
    data = datasets.Dataset.from_list(json.loads(json.dumps(rows)))
    trainer = trl.SFTTrainer(tiny_model(), args, train_dataset=data, eval_dataset=data, processing_class=tokenizer)
    found = []
    for batch in trainer.get_eval_dataloader():
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
            found.append((ids[mask.bool()].tolist(), labels[mask.bool()].tolist()))
    return found


@pytest.mark.long
@pytest.mark.parametrize("kind", ROWS)
def test_token_ids_and_labels_are_those_of_sft_trainer(kind: str, tmp_path: Path) -> None:
    rows, is_chat = ROWS[kind]
    tokenizer = chat_tokenizer()
    expected = by_trl(rows, tokenizer, tmp_path, assistant_only_loss=is_chat)
    windows = loaded_from(rows, tokenizer, "labels").windows
    assert [window.tolist() for window in windows.windows] == [ids for ids, _ in expected]
    # The label of a position is the target of the position before it.
    assert [row.tolist() for row in windows.targets] == [[*labels[1:], -100] for _, labels in expected]
    plain = loaded_from(rows, tokenizer, "next_token").windows
    assert [window.tolist() for window in plain.windows] == [ids for ids, _ in expected]
    assert plain.targets is None


@pytest.mark.long
def test_sharegpt(tmp_path: Path) -> None:
    """SFTTrainer converts it, but takes no `assistant_only_loss` for it: the labels are those of the messages."""
    rows, tokenizer = ROWS["messages"][0], chat_tokenizer()
    expected = by_trl(in_sharegpt(rows), tokenizer, tmp_path)
    loaded = loaded_from(in_sharegpt(rows), tokenizer, "next_token")
    assert [window.tolist() for window in loaded.windows.windows] == [ids for ids, _ in expected]
    assert loaded.columns == "conversations, by the tokenizer's chat template"
    labelled = [loaded_from(kind, tokenizer, "labels").windows.fingerprint for kind in (rows, in_sharegpt(rows))]
    assert labelled[0] == labelled[1]


@pytest.mark.parametrize("kind", [kind for kind, (_, is_chat) in ROWS.items() if is_chat])
@pytest.mark.parametrize("template", [MARKED, UNMARKED], ids=["marked", "unmarked"])
def test_chats_are_what_the_template_renders(template: str, kind: str) -> None:
    """Tokenised by hand: the rendered text, whose special tokens are its own, cut at the length of a window."""
    rows, tokenizer = ROWS[kind][0], chat_tokenizer(template)
    expected = []
    for row in rows:
        tools = json.loads(row["tools"]) if isinstance(row.get("tools"), str) else row.get("tools")
        text = tokenizer.apply_chat_template(
            row["messages"], tokenize=False, tools=tools, **row.get("chat_template_kwargs", {})
        )
        expected.append(tokenizer(text, add_special_tokens=False).input_ids[:LONGEST])
    loaded = loaded_from(rows, tokenizer, "next_token")
    assert [window.tolist() for window in loaded.windows.windows] == expected
    assert all(ids[:1] == [1] and ids[1] != 1 for ids in expected)  # one BOS token, that of the template
    assert not loaded.bos_per_window


def test_cuts_are_told_once() -> None:
    rows = [{"messages": chat(seed, turns=turns)} for seed, turns in enumerate((1, 5, 5))]
    with pytest.warns(UserWarning, match="Row 1 of the list has 76 tokens, more than window_length=40") as told:
        loaded_from(rows, chat_tokenizer(), "next_token")
    assert len(told) == 1
    with pytest.raises(CalibrationError, match=r"longer windows if a prompt fills them \(window_length\)"):
        loaded_from([{"prompt": make_text(60), "completion": " w3"}], chat_tokenizer(), "labels")


def test_only_the_assistant_counts() -> None:
    messages = [
        {"role": "user", "content": "w10 w11"},
        {"role": "assistant", "content": "w20 w21"},
        {"role": "user", "content": "w12"},
        {"role": "assistant", "content": "w22"},
    ]
    windows = loaded_from([{"messages": messages}], chat_tokenizer(), "labels").windows
    assert windows.windows[0].tolist() == [1, 61, 10, 11, 62, 20, 21, 2, 61, 12, 62, 22, 2]
    assert windows.targets[0].tolist() == [-100] * 4 + [20, 21, 2] + [-100] * 3 + [22, 2, -100]


def test_chats_without_the_assistant_are_left_out() -> None:
    rows = [{"messages": chat(0)[:1]}, {"messages": chat(1)}]
    assert len(loaded_from(rows, chat_tokenizer(), "labels").windows) == 1
    with pytest.raises(CalibrationError, match="name no token that is to be predicted"):
        loaded_from(rows[:1], chat_tokenizer(), "labels")


def test_no_chat_template(tokenizer) -> None:
    for rows in ([{"messages": chat()}], [{"prompt": chat()[:1], "completion": chat()[1:]}]):
        with pytest.raises(CalibrationError, match="has no chat template; use the tokenizer of a chat model"):
            loaded_from(rows, tokenizer, "next_token")


def test_no_tokenizer() -> None:
    with pytest.raises(CalibrationError, match="holds messages, but there is no tokenizer"):
        loaded_from([{"messages": chat()}], None, "next_token")


class TestMarks:
    """Of assistant turns, in the chat template."""

    def test_a_template_without_them_that_trl_does_not_know(self) -> None:
        with pytest.raises(CalibrationError, match="does not mark the assistant's turns.*put what they say between"):
            loaded_from([{"messages": chat()}], chat_tokenizer(UNMARKED), "labels")

    def test_completions_need_none(self) -> None:
        rows = [{"prompt": chat()[:3], "completion": chat()[3:]}]
        assert loaded_from(rows, chat_tokenizer(UNMARKED), "labels").windows.num_labels == 6

    @pytest.mark.long
    def test_a_template_that_trl_knows(self, tmp_path: Path) -> None:
        known = pytest.importorskip("trl.chat_template_utils").qwen3_chat_template
        tokenizer = chat_tokenizer(known)
        rows = [{"messages": chat(seed)} for seed in range(2)]
        loaded = loaded_from(rows, tokenizer, "labels")
        expected = by_trl(rows, tokenizer, tmp_path, assistant_only_loss=True)
        assert [window.tolist() for window in loaded.windows.windows] == [ids for ids, _ in expected]
        assert [row.tolist() for row in loaded.windows.targets] == [[*labels[1:], -100] for _, labels in expected]
        assert loaded.columns == "messages, by TRL's version of the tokenizer's chat template, assistant turns"
        assert tokenizer.chat_template == known

    def test_without_trl(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "trl.chat_template_utils", None)
        with pytest.raises(CalibrationError, match=r"install TRL \(pip install trl\)"):
            loaded_from([{"messages": chat()}], chat_tokenizer(UNMARKED), "labels")

    def test_marks_around_nothing(self) -> None:
        template = UNMARKED + "{% generation %}{% endgeneration %}"
        with pytest.raises(
            CalibrationError, match="Row 0 of the list has assistant turns, but the chat template marks"
        ):
            loaded_from([{"messages": chat()}], chat_tokenizer(template), "labels")


def test_a_prompt_that_merges_with_its_completion_counts_from_where_they_differ() -> None:
    """Words grow together where no space parts them."""
    rows = [{"prompt": "w3 w4 w1", "completion": "2 w6"}]
    windows = loaded_from(rows, chat_tokenizer(), "labels").windows
    assert windows.windows[0].tolist() == [1, 3, 4, 12, 6, 2]
    assert windows.targets[0].tolist() == [-100, -100, 12, 6, 2, -100]


def test_a_tokenizer_without_an_end() -> None:
    tokenizer = chat_tokenizer()
    tokenizer.eos_token = None
    windows = loaded_from([{"prompt": "w3", "completion": " w4"}], tokenizer, "labels").windows
    assert torch.equal(windows.windows[0], torch.tensor([1, 3, 4]))
