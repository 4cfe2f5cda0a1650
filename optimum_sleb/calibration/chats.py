"""Chats, and prompts with completions, tokenised row by row: token ids and labels are those of TRL's SFTTrainer."""

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..blocks.losses import IGNORED
from ..errors import CalibrationError
from .rows import Row, token_ids
from .templates import has_markers, template_with_markers
from .texts import checked_document, first_line
from .tokens import encode

# As TRL converts messages in the form of ShareGPT; the roles stay as they are.
_OF_SHAREGPT = {"from": "role", "value": "content"}
_NO_TEXT = re.compile("image|video|audio")
# Options of `apply_chat_template` that decide what comes back, not what is rendered.
_NOT_OF_A_ROW = re.compile(
    "add_generation_prompt|continue_final_message|max_length|padding|return_.*|sanitize_control_tokens|tokenize.*|tools|"
    "truncation"
)


@dataclass
class RowTokenizer:
    """What turns rows of chats, and of prompts with completions, into sequences of at most `length` tokens."""

    tokenizer: PreTrainedTokenizerBase
    length: int
    wants_labels: bool
    source: str  # for messages
    template: str | None = None  # instead of the tokenizer's own
    template_name: str = "the tokenizer's chat template"
    told_of_cuts: bool = False

    def check_template(self, *, assistant_turns: bool) -> None:
        """Refuse a tokenizer without a chat template; find one that marks assistant turns where these are counted."""
        name = type(self.tokenizer).__name__
        if not self.tokenizer.chat_template:
            raise CalibrationError(
                f"{self.source} holds chats, but the tokenizer ({name}) has no chat template; use the tokenizer of a "
                "chat model, set tokenizer.chat_template, or calibrate on text."
            )
        if self.wants_labels and assistant_turns and not has_markers(self.tokenizer.chat_template):
            self.template = template_with_markers(self.tokenizer)
            self.template_name = "TRL's version of the tokenizer's chat template"

    def of_chat(self, row: Mapping[str, Any], column: str, where: str) -> Iterator[Row]:
        """Yield the sequence of one chat, whose labels are the assistant's turns."""
        messages = _messages(row, column, where)
        ids, assistant = self._templated(messages, row, where, mask=self.wants_labels)
        if self.wants_labels and not assistant.any() and any(one["role"] == "assistant" for one in messages):
            raise CalibrationError(
                f"{where} has assistant turns, but the chat template marks no token of them, on which "
                'loss="labels" is measured; put what they say between {% generation %} and {% endgeneration %} in '
                "tokenizer.chat_template, or measure on every token."
            )
        yield self._cut(ids, assistant, where)

    def of_completion(self, row: Mapping[str, Any], as_chat: bool, where: str) -> Iterator[Row]:
        """Yield the sequence of a prompt and its completion, whose labels are the completion and the end of it.
        It begins where the prompt's tokens alone and those of both together differ, as at TRL."""
        if as_chat:
            prompt, completion = (_messages(row, name, where) for name in ("prompt", "completion"))
            ids, _ = self._templated(prompt + completion, row, where)
        else:
            text, answer = (
                checked_document(row.get(name), f"{where} has in the field {name!r}", "text_column")
                for name in ("prompt", "completion")
            )
            eos = self.tokenizer.eos_token or ""
            ids = self._encode(text + answer + ("" if answer.endswith(eos) else eos), where)
        completed = torch.zeros(len(ids), dtype=torch.bool)
        if self.wants_labels:
            alone = (
                self._templated(prompt, row, where, add_generation_prompt=True)[0]
                if as_chat
                else self._encode(text, where)
            )
            completed[_common_prefix(alone, ids) :] = True
        yield self._cut(ids, completed, where)

    def _cut(self, ids: Tensor, counted: Tensor, where: str) -> Row:
        if len(ids) > self.length and not self.told_of_cuts:
            self.told_of_cuts = True
            warnings.warn(
                f"{where} has {len(ids):,} tokens, more than window_length={self.length}; of it and of other such "
                "rows, the start is used.",
                stacklevel=2,
            )
        labels = ids.where(counted, IGNORED)[: self.length] if self.wants_labels else None
        return Row(ids[: self.length], labels)

    def _encode(self, text: str, where: str) -> Tensor:
        return encode(text, self.tokenizer, add_special_tokens=True, what=_lower(where))

    def _templated(
        self,
        messages: list[dict[str, Any]],
        row: Mapping[str, Any],
        where: str,
        mask: bool = False,
        add_generation_prompt: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Return the token ids of messages, and which of them the assistant says (`mask`)."""
        options = {"chat_template": self.template, **_template_options(row, where)}
        try:
            encoded = self.tokenizer.apply_chat_template(
                messages,
                add_generation_prompt=add_generation_prompt,
                tokenize=True,  # the template puts the special tokens; the tokenizer adds none
                return_dict=True,
                return_assistant_tokens_mask=mask,
                **options,
            )
        except MemoryError:
            raise
        except Exception as error:  # a template is foreign code, and may refuse roles and their order
            raise CalibrationError(
                f"{where} does not go through the chat template ({first_line(error)[:200]}); correct its messages, or "
                "set a template that takes them (tokenizer.chat_template)."
            ) from error
        ids = token_ids(encoded["input_ids"], f"{where} (tokenised)")
        said = encoded["assistant_masks"] if mask else [0] * len(ids)
        return ids, torch.tensor(said, dtype=torch.bool)


def _messages(row: Mapping[str, Any], column: str, where: str) -> list[dict[str, Any]]:
    """Return the messages of a column in the form {role, content}; refuse what a template would drop or misread."""
    value = row.get(column)
    if not isinstance(value, list | tuple | ndarray) or not len(value):
        found = "an empty list" if isinstance(value, list | tuple | ndarray) else f"a value of type {_kind(value)}"
        raise CalibrationError(
            f"{where} has in the field {column!r} {found}, where messages are expected, a list of {{role, content}}; "
            "remove the row, or correct it."
        )
    for other in ("image", "images", "videos", "audio"):
        if row.get(other) is not None and other in row and not (isinstance(row[other], list) and not row[other]):
            raise CalibrationError(f"{where} holds {other}, but blocks are chosen on text alone; remove the row.")
    return [_message(one, f"Message {number} ({column}) of {_lower(where)}") for number, one in enumerate(value)]


def _message(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise CalibrationError(f"{where} is of type {_kind(value)}; give messages as {{role, content}}.")
    message = {_OF_SHAREGPT.get(str(name), str(name)): item for name, item in value.items()}
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str):
        raise CalibrationError(f"{where} has a role of type {_kind(role)}, where a name is expected; give it a role.")
    if content is None and all(item is None for name, item in message.items() if name not in ("role", "name")):
        raise CalibrationError(f"{where} has no content (null); remove it, or give it text.")
    if content is not None and not isinstance(content, str | list | tuple | ndarray):
        raise CalibrationError(f"{where} has content of type {_kind(content)}, where text is expected; give it text.")
    for part in () if isinstance(content, str) or content is None else content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(kind, str) and _NO_TEXT.search(kind):
            raise CalibrationError(
                f"{where} holds a part of type {kind!r}, but blocks are chosen on text alone; remove the row."
            )
    return message


def _template_options(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the tools and template options of a row, which have columns of their own."""
    tools, options = row.get("tools"), row.get("chat_template_kwargs")
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except (ValueError, RecursionError) as error:
            raise CalibrationError(
                f"{where} has tools that are no JSON ({first_line(error)}); correct them, or leave them out."
            ) from error
    if options is not None and not isinstance(options, Mapping):
        raise CalibrationError(
            f"{where} has chat_template_kwargs of type {_kind(options)}; give names with values, or leave them out."
        )
    wrong = [name for name in options or () if _NOT_OF_A_ROW.fullmatch(str(name))]
    if wrong:
        raise CalibrationError(
            f"{where} has {wrong[0]!r} in chat_template_kwargs, which is no variable of the template; leave it out."
        )
    return {"tools": tools, **(options or {})}


def _common_prefix(one: Tensor, other: Tensor) -> int:
    length = min(len(one), len(other))
    differ = (one[:length] != other[:length]).nonzero()
    return int(differ[0]) if len(differ) else length


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _lower(where: str) -> str:
    return where[:1].lower() + where[1:]
