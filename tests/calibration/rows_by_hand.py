"""Rows of every kind, and the windows that come of them: tokenised by hand and cut."""

from collections.abc import Callable
from typing import Any

from ..conftest import make_text
from .chatting import chat

LENGTH, COUNT, BOS, EOS = 16, 5, 1, 2
TEXTS = [make_text(7 + number, seed=number) for number in range(20)]
CHATS = [chat(seed, turns=1 + seed % 2) for seed in range(8)]
PAIRS = [(make_text(5, seed=seed), " " + make_text(4, seed=seed + 50)) for seed in range(8)]
IDS = [list(range(3, 8 + number)) for number in range(8)]
MASKS = [[1] * (len(ids) - 1) + [0] for ids in IDS]
LABELS = [[-100, -100, *ids[2:]] for ids in IDS]

Windows = list[tuple[list[int], list[int] | None]]  # token ids, and the label of each; None where all count


def words(text: str) -> list[int]:
    return [int(word[1:]) for word in text.split()]


def cut_text() -> Windows:
    ids = words(" ".join(TEXTS))
    starts = range(0, COUNT * (LENGTH - 1), LENGTH - 1)
    return [([BOS, *ids[start : start + LENGTH - 1]], None) for start in starts]


def of_chat(messages: list[dict[str, Any]]) -> tuple[list[int], list[int]]:
    """By hand: the template of the tests, written in Python."""
    ids, labels = [BOS], [-100]
    for message in messages:
        said = words(message["content"])
        if message["role"] == "assistant":
            ids += [62, *said, EOS]
            labels += [-100, *said, EOS]
        else:
            ids += [61, *said]
            labels += [-100] * (1 + len(said))
    return ids, labels


def of_chats(loss: str) -> Windows:
    rows = [of_chat(messages) for messages in CHATS]
    return with_labels([(ids[:LENGTH], labels[:LENGTH] if loss == "labels" else None) for ids, labels in rows])


def of_last_turns(loss: str) -> Windows:
    if loss == "next_token":
        return of_chats(loss)
    rows = []
    for messages in CHATS:
        ids, labels = of_chat(messages)
        answer = len(words(messages[-1]["content"])) + 1
        rows.append((ids[:LENGTH], [*[-100] * (len(ids) - answer), *labels[-answer:]][:LENGTH]))
    return with_labels(rows)


def of_pairs(loss: str) -> Windows:
    rows: Windows = []
    for prompt, completion in PAIRS:
        first, rest = [BOS, *words(prompt)], [*words(completion), EOS]
        labels = ([-100] * len(first) + rest)[:LENGTH] if loss == "labels" else None
        rows.append(((first + rest)[:LENGTH], labels))
    return with_labels(rows)


def of_ids(loss: str) -> Windows:
    return with_labels([(ids, row if loss == "labels" else None) for ids, row in zip(IDS, LABELS, strict=True)])


def with_labels(rows: Windows) -> Windows:
    """The first rows in which anything is to be predicted."""
    return [row for row in rows if row[1] is None or any(label != -100 for label in row[1][1:])][:COUNT]


# The kinds of rows: how each is written down, and what comes of it.
KINDS: dict[str, tuple[list[Any], Callable[[str], Windows]]] = {
    "text": ([{"text": text} for text in TEXTS], lambda loss: cut_text()),
    "messages": ([{"messages": messages} for messages in CHATS], of_chats),
    "prompt and completion": ([{"prompt": a, "completion": b} for a, b in PAIRS], of_pairs),
    "chats of prompt and completion": (
        [{"prompt": messages[:-1], "completion": messages[-1:]} for messages in CHATS],
        of_last_turns,
    ),
    "input_ids": ([{"input_ids": ids} for ids in IDS], of_ids),
    "input_ids and labels": (
        [{"input_ids": ids, "labels": row} for ids, row in zip(IDS, LABELS, strict=True)],
        of_ids,
    ),
    "input_ids and masks": (
        [
            {"input_ids": ids, "completion_mask": [int(label != -100) for label in row]}
            for ids, row in zip(IDS, LABELS, strict=True)
        ],
        of_ids,
    ),
    "input_ids and attention_mask": (
        [{"input_ids": ids, "attention_mask": mask} for ids, mask in zip(IDS, MASKS, strict=True)],
        lambda loss: [(ids[:-1], None) for ids in IDS][:COUNT],
    ),
    "position_ids": (
        [
            {"input_ids": [*a, *b], "position_ids": [*range(len(a)), *range(len(b))]}
            for a, b in zip(IDS[::2], IDS[1::2], strict=True)
        ],
        of_ids,
    ),
}
LABELLED = (
    "messages",
    "prompt and completion",
    "chats of prompt and completion",
    "input_ids and labels",
    "input_ids and masks",
)
