"""Strange rows of chats, completions and mixed kinds: one sentence that names the row, or the right result."""

from collections.abc import Callable, Iterator
from typing import Any

import datasets
import pytest

from optimum_sleb import SLEBConfig, SLEBError
from optimum_sleb.calibration.sources import load_calibration

from ..calibration.chatting import MARKED, PLAIN, chat, chat_tokenizer
from .test_data import assert_one_sentence

CHAT = chat()
FAILING = "{{ raise_exception('only user and assistant') }}"


def said(content: Any, role: Any = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content}, *CHAT]}


# A row in the place of the second one, and the words that the message must have beside the number of the row.
CHATS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "no messages": ({"messages": []}, ("'messages'", "an empty list")),
    "null messages": ({"messages": None}, ("'messages'", "null")),
    "no column": ({"other": 5}, ("'messages'", "null")),
    "text": ({"messages": "w3 w4"}, ("'messages'", "type str")),
    "a mapping of lists": ({"messages": {"role": ["user"], "content": ["w3"]}}, ("'messages'", "type dict")),
    "numbers": ({"messages": [3, 4]}, ("Message 0", "type int")),
    "a message that is null": ({"messages": [*CHAT, None]}, ("Message 4", "null")),
    "null content": (said(None), ("Message 0", "no content")),
    "no content": ({"messages": [{"role": "user"}]}, ("Message 0", "no content")),
    "content of a number": (said(5), ("Message 0", "type int")),
    "content of a mapping": (said({"text": "w3"}), ("Message 0", "type dict")),
    "bytes": (said(b"w3"), ("Message 0", "type bytes")),
    "half a pair": (said("w3 \ud800"), ("chat template",)),
    "no role": ({"messages": [{"content": "w3"}]}, ("Message 0", "role", "null")),
    "null role": (said("w3", None), ("Message 0", "role", "null")),
    "a number as role": (said("w3", 5), ("Message 0", "role", "int")),
    "a role that the template does not know": (said("w3", "narrator"), ("chat template", "UndefinedError")),
    "an image": (said([{"type": "image", "url": "http://127.0.0.1:1/a.png"}]), ("Message 0", "'image'", "text alone")),
    "an image as of OpenAI": (said([{"type": "image_url", "image_url": {"url": "x"}}]), ("Message 0", "'image_url'")),
    "sound": (said([{"type": "input_audio", "input_audio": {}}]), ("Message 0", "'input_audio'")),
    "parts that the template does not take": (said([{"type": "text", "text": "w3"}]), ("chat template",)),
    "images beside": ({"messages": CHAT, "images": ["a.png"]}, ("images", "text alone")),
    "tools that are no JSON": ({"messages": CHAT, "tools": "{"}, ("tools", "JSON")),
    "tools nested deeply": ({"messages": CHAT, "tools": "[" * 100_000}, ("tools", "JSON")),
    "tools that are a number": ({"messages": CHAT, "tools": 5}, ("chat template",)),
    "tools that are text": ({"messages": CHAT, "tools": ["w3"]}, ("chat template",)),
    "options that are text": ({"messages": CHAT, "chat_template_kwargs": "w3"}, ("chat_template_kwargs", "str")),
    "options of the tokenizer": (
        {"messages": CHAT, "chat_template_kwargs": {"return_tensors": "pt"}},
        ("'return_tensors'", "chat_template_kwargs"),
    ),
    "a template that fails": ({"messages": CHAT, "chat_template_kwargs": {"chat_template": FAILING}}, ("only user",)),
    "a template that is none": ({"messages": CHAT, "chat_template_kwargs": {"chat_template": "{%"}}, ("template",)),
    "a template without end": (
        {"messages": CHAT, "chat_template_kwargs": {"chat_template": "{% for n in range(10**12) %}{% endfor %}"}},
        ("chat template",),
    ),
    "a template that reaches out": (
        {
            "messages": CHAT,
            "chat_template_kwargs": {"chat_template": "{{ ''.__class__.__mro__[1].__subclasses__() }}"},
        },
        ("chat template", "SecurityError"),
    ),
    "a row that is text": ("w3 w4", ("type str",)),
    "a row that is null": (None, ("type NoneType",)),
    "a row that is a list": ([3, 4], ("type list",)),
}
COMPLETIONS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "null prompt": ({"prompt": None, "completion": "w3"}, ("'prompt'", "null")),
    "null completion": ({"prompt": "w3", "completion": None}, ("'completion'", "null")),
    "no completion": ({"prompt": "w3"}, ("'completion'", "null")),
    "a number": ({"prompt": 5, "completion": "w3"}, ("'prompt'", "type int")),
    "a chat among texts": ({"prompt": CHAT[:3], "completion": CHAT[3:]}, ("'prompt'", "type list")),
    "half a chat": ({"prompt": "w3", "completion": CHAT[3:]}, ("'completion'", "type list")),
    "half a pair": ({"prompt": "w3", "completion": "\ud800"}, ("'completion'", "Unicode")),
    "messages": ({"messages": CHAT}, ("'prompt'", "null")),
}
TOKENS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "no ids": ({"text": "w3"}, ("input_ids", "null")),
    "huge ids": ({"input_ids": [2**70, 3]}, ("input_ids",)),
    "a mask of another length": ({"input_ids": [3, 4, 5], "completion_mask": [1]}, ("completion_mask", "shape")),
    "a mask of text": ({"input_ids": [3, 4], "assistant_masks": "w3"}, ("assistant_masks",)),
}
TEXTS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "messages": ({"messages": CHAT}, ("'text'",)),
    "null": ({"text": None}, ("'text'", "null")),
}
FIRST: dict[str, dict[str, Any]] = {
    "chats": {"messages": CHAT},
    "completions": {"prompt": "w3", "completion": " w4"},
    "tokens": {"input_ids": [3, 4, 5]},
    "texts": {"text": "w3"},
}
TABLES = {"chats": CHATS, "completions": COMPLETIONS, "tokens": TOKENS, "texts": TEXTS}
CASES = [(kind, name) for kind, table in TABLES.items() for name in table]


def as_generator(rows: list[Any]) -> Callable[[], Iterator[Any]]:
    return lambda: iter(rows)


def as_stream(rows: list[Any]) -> Any:
    return datasets.IterableDataset.from_generator(lambda: iter(rows))


def config(loss: str) -> SLEBConfig:
    return SLEBConfig(sparsity=0.2, window_length=16, max_windows=4, loss=loss)


@pytest.mark.parametrize("loss", ["next_token", "labels"])
@pytest.mark.parametrize("door", [list, as_generator, as_stream], ids=["list", "generator", "stream"])
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_strange_row_behind_a_sound_one(kind: str, name: str, door: Any, loss: str) -> None:
    row, names = TABLES[kind][name]
    if loss == "labels" and kind in ("tokens", "texts"):  # the sound row has none
        return
    if isinstance(row, str) and door is list:  # a list with a string is one of texts, of which the other row is none
        names = ("Item 0",) if loss == "next_token" else ("carries no labels",)
    elif door is not as_stream or isinstance(row, dict):  # else `datasets` refuses it
        names = (*names, "ow 1")
    with pytest.raises(SLEBError) as error:
        load_calibration(door([FIRST[kind], row]), chat_tokenizer(), config(loss))
    assert_one_sentence(str(error.value), *names)


@pytest.mark.parametrize("name", [name for name in CHATS if not name.startswith("a row that")])
def test_a_strange_chat_as_the_first_one(name: str) -> None:
    with pytest.raises(SLEBError) as error:
        load_calibration([CHATS[name][0]], chat_tokenizer(), config("next_token"))
    assert_one_sentence(str(error.value), "ow 0")


UNKNOWN: dict[str, dict[str, Any]] = {
    "a prompt alone": {"prompt": "w3 w4"},
    "preferences": {"prompt": "w3", "chosen": "w4", "rejected": "w5"},
    "preferences without a prompt": {"chosen": CHAT, "rejected": CHAT},
    "questions": {"question": "w3", "answer": "w4"},
    "a completion alone": {"completion": "w3"},
    "no columns": {},
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_columns_that_nobody_reads(name: str) -> None:
    with pytest.raises(SLEBError) as error:
        load_calibration([UNKNOWN[name]] * 3, chat_tokenizer(), config("next_token"))
    known = ("text_column", "messages", "prompt and completion", "input_ids")
    assert_one_sentence(str(error.value), "Row 0 of the list", *map(repr, UNKNOWN[name]), *known)


def test_a_single_chat() -> None:
    with pytest.raises(SLEBError, match=r"only 'role', 'content'.*a single chat is a list of one: \[messages\]"):
        load_calibration(CHAT, chat_tokenizer(), config("next_token"))


@pytest.mark.parametrize(
    "template", ["{%", FAILING, "{{ nothing.at.all }}", 5], ids=["cut", "failing", "undefined", "5"]
)
def test_a_strange_template(template: Any) -> None:
    with pytest.raises(SLEBError) as error:
        load_calibration([CHAT], chat_tokenizer(template), config("next_token"))
    assert_one_sentence(str(error.value), "template")


@pytest.mark.parametrize("template", [{}, {"default": 5}, {"rag": MARKED}, {"default": PLAIN}, 5, "{% generation %}"])
def test_a_strange_template_for_labels(template: Any) -> None:
    with pytest.raises(SLEBError) as error:
        load_calibration([CHAT], chat_tokenizer(template), config("labels"))
    assert_one_sentence(str(error.value), "template")


def test_parts_of_text_go_to_a_template_that_takes_them() -> None:
    template = (
        "{% for message in messages %}{% for part in message.content %}{{ part.text + ' ' }}{% endfor %}{% endfor %}"
    )
    rows = [
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "w3 w4"}, {"type": "text", "text": "w5"}]}
            ]
        }
    ]
    loaded = load_calibration(rows, chat_tokenizer(template), config("next_token"))
    assert loaded.windows.windows[0].tolist() == [3, 4, 5]
