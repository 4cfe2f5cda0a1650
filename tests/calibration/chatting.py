"""Tokenizers with chat templates, and chats in many forms, for the tests of calibration data."""

from typing import Any

from transformers import PreTrainedTokenizerFast

from ..conftest import make_text, make_tokenizer

# Special tokens of the tests' tokenizer stand for the roles; the template puts the BOS token itself.
PLAIN = (
    "{{ bos_token + ' ' }}{% if tools %}{% for tool in tools %}{{ tool['name'] + ' ' }}{% endfor %}{% endif %}"
    "{% if style is defined %}{{ style + ' ' }}{% endif %}"
    "{% for message in messages %}"
    "{{ {'system': 'w60', 'user': 'w61', 'assistant': 'w62', 'tool': 'w63'}[message['role']] + ' ' }}"
    "{% if message['role'] == 'assistant' %}"
    "BEGIN{{ message['content'] + ' ' + eos_token }}END{{ ' ' }}"
    "{% else %}{{ message['content'] + ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'w62 ' }}{% endif %}"
)
MARKED = PLAIN.replace("BEGIN", "{% generation %}").replace("END", "{% endgeneration %}")
UNMARKED = PLAIN.replace("BEGIN", "").replace("END", "")


def chat_tokenizer(template: str | None = MARKED, add_bos: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer that puts a BOS token before plain text, with a chat template."""
    tokenizer = make_tokenizer(add_bos=add_bos)
    tokenizer.chat_template = template
    return tokenizer


def chat(seed: int = 0, turns: int = 2, words: int = 4) -> list[dict[str, Any]]:
    """A chat of so many turns of the user, each answered by the assistant."""
    return [
        {"role": role, "content": make_text(words + turn, seed=100 * seed + 10 * turn + number)}
        for turn in range(turns)
        for number, role in enumerate(("user", "assistant"))
    ]
