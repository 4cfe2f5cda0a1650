"""The kinds of rows by TRL's conventions, and which of their columns is read. It needs no torch: it is there fast."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..config import SLEBConfig
from ..errors import CalibrationError

# Columns and their kinds. Where rows hold several, the first of these is used; completions go with their prompts.
_KINDS: dict[str, Literal["input_ids", "completion", "chat", "text"]] = {
    "input_ids": "input_ids",
    "completion": "completion",
    "messages": "chat",
    "conversations": "chat",
    "text": "text",
}


def is_chat(value: Any) -> bool:
    """Tell whether a value is a list of messages; the first one decides.

    >>> is_chat([{"role": "user", "content": "Hello"}]), is_chat("Hello")
    (True, False)
    """
    if str(getattr(value, "dtype", "")) == "object":  # an array of numpy, whose import takes long
        value = value.tolist()
    return isinstance(value, list | tuple) and len(value) > 0 and isinstance(value[0], Mapping)


@dataclass(frozen=True)
class Choice:
    """The column to read."""

    column: str  # of prompts and completions, "completion"
    kind: Literal["input_ids", "completion", "chat", "text"]
    unused: tuple[str, ...] = ()  # columns beside it that hold the same in another form


def choose_column(first: Mapping[str, Any], source: str, text_column: str) -> Choice:
    """Return the column to read, by the first row; one that is named (`text_column`) holds text or chats."""
    if text_column != SLEBConfig.text_column:
        present = [text_column] if text_column in first else []
    else:
        present = [name for name in _KINDS if _holds(first, name)]
        if not present:  # what is wrong with this row is said by those who read a column of its name
            present = [name for name in _KINDS if name in first and (name != "completion" or "prompt" in first)][:1]
    if not present:
        hint = " (a single chat is a list of one: [messages])" if "role" in first else ""
        raise CalibrationError(
            f"Row 0 of {source} has no field {text_column!r}, only {', '.join(map(repr, first))}; name the one with "
            f"the text (text_column), or give messages, prompt and completion, or input_ids{hint}."
        )
    column, *unused = present
    if text_column != SLEBConfig.text_column:
        return Choice(column, "chat" if is_chat(first[column]) else "text")
    return Choice(column, _KINDS[column], tuple(unused))


def _holds(row: Mapping[str, Any], name: str) -> bool:
    if _KINDS[name] == "chat":
        return is_chat(row.get(name))
    return row.get(name) is not None and (name != "completion" or row.get("prompt") is not None)
