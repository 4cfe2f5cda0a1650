"""Text of the dense model's own: its answers to prompts from data, or from its first token alone."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_from_disk
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..blocks.forward import evaluating
from ..blocks.losses import IGNORED, next_tokens
from ..calibration.loaded import LoadedWindows
from ..calibration.texts import first_line
from ..calibration.windows import TokenWindows
from ..card.format import public_dataset_name
from ..errors import CalibrationError, JournalError
from ..runtime.logs import get_logger
from .shards import Shards
from .teacher import Lesson

logger = get_logger(__name__)
# Of text without labels, so many tokens of a window are the prompt.
_PROMPT_OF_TEXT = 16
# Rows that a GPU writes at a time, for models of up to so many parameters: each holds its own keys and values.
_ROWS_AT_A_TIME = ((1e9, 256), (float("inf"), 64))
_ROWS_ON_CPU = 8


def own_windows(
    folder: Path,
    lesson: Lesson,
    student: PreTrainedModel,
    prompts: LoadedWindows | None,
    tokenizer: PreTrainedTokenizerBase | None,
    count: int,
    length: int,
    seed: int,
) -> LoadedWindows:
    """Return windows with answers of the dense model, whose labels are the answers; they are kept in a folder as a
    `Dataset`, and what an interrupted pass has written is not written again."""
    places = [_first_token(student, tokenizer)] if prompts is None else list(_prompts(prompts.windows, length))
    if not places:
        raise CalibrationError(
            f"No row of {prompts.source if prompts else 'the data'} leaves room for an answer in {length} tokens; "
            "choose longer windows (window_length)."
        )
    asked = "no prompt" if prompts is None else public_dataset_name(prompts.source).replace("/", " ")
    source = f"{count:,} answers of {lesson.name} to {asked}"
    done = folder / "rows"
    on_gpu = next(rows for most, rows in _ROWS_AT_A_TIME if student.num_parameters() <= most)
    batch = on_gpu if student.device.type == "cuda" else _ROWS_ON_CPU
    header = {
        "teacher": lesson.fingerprint,
        "prompts": None if prompts is None else prompts.windows.fingerprint,
        "length": length,
        "seed": seed,
    }
    shards = Shards(folder / "parts", header, count, batch)
    if not done.is_dir():
        if shards.missing():
            _generate(shards, lesson.load(student), places, count, length, seed)
        rows = [shards.row(number) for number in range(count)]
        columns = {name: [row[name].numpy() for row in rows] for name in ("input_ids", "labels")}
        fresh = folder / "rows.new"
        shutil.rmtree(fresh, ignore_errors=True)  # what a kill left
        try:
            Dataset.from_dict(columns).save_to_disk(str(fresh))
            fresh.rename(done)
        except OSError as error:
            raise JournalError(f"{done} cannot be written ({error}); make room there, and try again.") from error
    try:
        kept = load_from_disk(str(done)).with_format("torch")
    except MemoryError:
        raise
    except Exception as error:  # whatever datasets makes of damaged files
        raise JournalError(
            f"{done} cannot be read ({first_line(error)}); remove it, and it is written again."
        ) from error
    windows = TokenWindows(tuple(kept["input_ids"]), tuple(next_tokens(labels) for labels in kept["labels"]))
    return LoadedWindows(windows, source, bos_per_window=False)


def _generate(
    shards: Shards, model: PreTrainedModel, prompts: list[Tensor], count: int, length: int, seed: int
) -> None:
    ends = model.generation_config.eos_token_id
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]

    def answers(span: range) -> list[dict[str, Tensor]]:
        torch.manual_seed(seed + span.start)  # of each shard, so that an interrupted pass goes on with the same ones
        asked = [prompts[number % len(prompts)] for number in span]
        found: dict[int, dict[str, Tensor]] = {}
        for group in _of_like_length(asked, length):
            found |= zip(group, _answers(model, [asked[number] for number in group], length, ends), strict=True)
        return [found[number] for number in range(len(asked))]

    devices = [model.device] if model.device.type == "cuda" else []
    with evaluating(model), torch.random.fork_rng(devices):
        shards.fill(answers, lambda done: logger.info(f"{done:,} of {count:,} answers are written."))


def _of_like_length(prompts: list[Tensor], length: int) -> list[list[int]]:
    """Return the numbers of prompts in groups to answer together. All answers of a group get the room that its longest
    prompt leaves, which is at least half of what the shortest would leave."""
    groups: list[list[int]] = []
    for number in sorted(range(len(prompts)), key=lambda number: len(prompts[number])):
        if not groups or 2 * (length - len(prompts[number])) < length - len(prompts[groups[-1][0]]):
            groups.append([])
        groups[-1].append(number)
    return groups


def _answers(model: PreTrainedModel, prompts: list[Tensor], length: int, ends: list[int]) -> list[dict[str, Tensor]]:
    """Return rows of prompt and answer, up to the first end of text, and labels for the answers."""
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, prompt in enumerate(prompts):  # padded on the left, so that all answers begin at one place
        ids[number, longest - len(prompt) :] = prompt
        mask[number, longest - len(prompt) :] = 1
    written = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=length - longest,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        pad_token_id=ends[0] if ends else 0,
    ).cpu()
    rows = []
    for prompt, row in zip(prompts, written, strict=True):
        answer = row[longest:]
        is_end = torch.isin(answer, torch.tensor(ends, dtype=torch.long)).nonzero()
        answer = answer[: int(is_end[0]) + 1] if len(is_end) else answer
        asked = torch.full_like(prompt, IGNORED)
        rows.append({"input_ids": torch.cat([prompt, answer]), "labels": torch.cat([asked, answer])})
    return rows


def _prompts(windows: TokenWindows, length: int) -> Iterator[Tensor]:
    """Yield what stands before the first label of each window, or of text the first tokens."""
    for number, window in enumerate(windows.windows):
        targets = None if windows.targets is None else windows.targets[number]
        end = _PROMPT_OF_TEXT
        if targets is not None and (targets[:-1] == IGNORED).any():
            end = int((targets != IGNORED).nonzero()[0]) + 1
        if 0 < end < min(len(window), length):
            yield window[:end]


def _first_token(model: PreTrainedModel, tokenizer: Any) -> Tensor:
    config = model.generation_config
    named = [getattr(tokenizer, "bos_token_id", None), config.bos_token_id, config.eos_token_id]
    first = next((one for one in named if one is not None), None)
    if first is None:
        raise CalibrationError(
            "Neither tokenizer nor model name a token that texts begin with; give data, which are taken for prompts."
        )
    return torch.tensor([first[0] if isinstance(first, list) else first])
