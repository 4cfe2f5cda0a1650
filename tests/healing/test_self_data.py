"""Answers of the dense model: to prompts from data or to none, the same ones after an interruption."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_from_disk

from optimum_sleb import SLEBConfig, heal
from optimum_sleb.errors import CalibrationError, JournalError
from optimum_sleb.healing.data import load_windows
from optimum_sleb.healing.self_data import own_windows
from optimum_sleb.healing.shards import Shards
from optimum_sleb.healing.teacher import Lesson

from ..conftest import make_text
from ..families import tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = SLEBConfig(num_blocks_to_remove=1, window_length=20, max_windows=8)


def written(folder: Path, prompts: Any = None, count: int = 12, tokenizer: Any = None, length: int = 20) -> Any:
    dense = tiny_model(seed=1)
    lesson = Lesson(dense, None, 64, None)
    return own_windows(folder, lesson, dense, prompts, tokenizer, count, length, seed=3)


@pytest.mark.long
def test_from_the_first_token_alone(tmp_path: Path, tokenizer) -> None:
    loaded = written(tmp_path, tokenizer=tokenizer)
    assert loaded.source == "12 answers of the dense model to no prompt"
    assert {window[0].item() for window in loaded.windows.windows} == {tokenizer.bos_token_id}
    for window in loaded.windows.windows:
        ends = (window == tokenizer.eos_token_id).nonzero().flatten().tolist()
        assert ends in ([], [len(window) - 1])  # cut behind the end of the text, which is learned as well
        assert len(window) == 20 or ends
    assert len({tuple(window.tolist()) for window in loaded.windows.windows}) == 12
    rows = load_from_disk(str(tmp_path / "rows"))
    assert rows.column_names == ["input_ids", "labels"]
    assert rows[0]["labels"] == [-100, *rows[0]["input_ids"][1:]]


@pytest.mark.long
def test_prompts_from_completions_and_from_text(tmp_path: Path, tokenizer) -> None:
    rows = [{"prompt": make_text(3 + number, seed=number), "completion": " w5"} for number in range(4)]
    loaded = written(tmp_path / "rows", load_windows(rows, tokenizer, RECIPE, "auto", by_tokens=False))
    for number, (window, targets) in enumerate(zip(loaded.windows.windows, loaded.windows.targets, strict=True)):
        prompt = tokenizer(rows[number % 4]["prompt"]).input_ids
        assert window[: len(prompt)].tolist() == prompt
        assert (targets != -100).nonzero()[0] == len(prompt) - 1
    text = load_windows([make_text(200)], tokenizer, RECIPE, "auto", by_tokens=False)
    loaded = written(tmp_path / "text", text)
    assert loaded.windows.windows[8][:16].equal(text.windows.windows[0][:16])
    assert (loaded.windows.targets[0] != -100).nonzero()[0] == 15


def test_a_long_prompt_does_not_shorten_the_answers_to_others(tmp_path: Path, tokenizer) -> None:
    texts = [make_text(length, seed=length) for length in (3, 17, 4, 12)]
    rows = [{"prompt": text, "completion": " w5"} for text in texts]
    loaded = written(tmp_path, load_windows(rows, tokenizer, RECIPE, "auto", by_tokens=False), count=4)
    for text, window, targets in zip(texts, loaded.windows.windows, loaded.windows.targets, strict=True):
        prompt = tokenizer(text).input_ids
        assert window[: len(prompt)].tolist() == prompt
        answer = int((targets != -100).sum())
        assert 2 * answer >= 20 - len(prompt) or window[-1] == tokenizer.eos_token_id  # at least half of the room


@pytest.mark.long
def test_interrupted_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = written(tmp_path / "whole")
    write = Shards.write

    def stop_at_the_second(self: Shards, span: range, rows: Any) -> None:
        if span.start:
            raise KeyboardInterrupt
        write(self, span, rows)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Shards, "write", stop_at_the_second)
        written(tmp_path / "part")
    assert len(list((tmp_path / "part" / "parts").glob("*.safetensors"))) == 1
    assert written(tmp_path / "part").windows.fingerprint == whole.windows.fingerprint
    with pytest.raises(JournalError, match="was computed with num_rows=12, but now it is 13"):
        written(tmp_path / "part", count=13)


def test_a_disk_that_is_full(tmp_path: Path, tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(JournalError, match="rows cannot be written .*No space left"):
        patched.setattr(Dataset, "save_to_disk", full)
        written(tmp_path, count=1, tokenizer=tokenizer)
    assert len(written(tmp_path, count=1, tokenizer=tokenizer).windows) == 1


def test_what_leaves_no_room(tmp_path: Path, tokenizer) -> None:
    text = load_windows([make_text(200)], tokenizer, RECIPE, "auto", by_tokens=False)
    with pytest.raises(CalibrationError, match="leaves room for an answer in 16 tokens"):
        written(tmp_path, text, length=16)


@pytest.mark.long
@pytest.mark.parametrize("method", ["full", "distill"])
def test_healing_on_it(method: Any, model_folder: Path, tokenizer, tmp_path: Path) -> None:
    model, settings = tiny_model(), {"batch_size": 4, "window_length": 20, "steps": 2, "disable_tqdm": True}
    heal(model, tokenizer, method, self_data=9, teacher=model_folder, output_dir=tmp_path / "run", **settings)
    assert len(load_from_disk(str(tmp_path / "run" / "self-data" / "rows"))) == 9
