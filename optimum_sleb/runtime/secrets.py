"""Removal of tokens and passwords from text that people read or send."""

import os
import re
from contextlib import suppress

# Names of environment variables that hold something secret.
_NAMES = re.compile(r"token|secret|passw|credential|api_?key|access_?key|private_?key", re.IGNORECASE)
_TOKEN = re.compile(r"\bhf_\w{4,}|(?<=://)[^\s/@:]*:[^\s/@]*(?=@)")
# `Authorization: Bearer ...`, `?token=...`, `api_key='...'`: what follows goes, what it is stays.
_NAMED = re.compile(
    r"((?:\bbearer\s+|(?:token|secret|password|api_?key|signature)\b[\"']?\s*[=:]\s*)[\"']?)[^\s\"'&,;)}]+",
    re.IGNORECASE,
)


def without_secrets(text: str, *tokens: str | None) -> str:
    """Return a text with *** for these tokens, that of the login, values of the environment that are secret by their
    name, and whatever looks like a token or a password.

    >>> without_secrets("GET https://me:word@hub/a?token=abc&b=1 with hf_abcdefgh")
    'GET https://***@hub/a?token=***&b=1 with ***'
    """
    secret = [value for name, value in os.environ.items() if _NAMES.search(name) and len(value.strip()) >= 8]
    with suppress(Exception):  # of a file with the token that cannot be read, nothing can be told
        from huggingface_hub import get_token

        tokens = (*tokens, get_token())
    for value in sorted(filter(None, {*tokens, *secret}), key=len, reverse=True):
        if value.strip():
            text = text.replace(value.strip(), "***")
    return _NAMED.sub(r"\1***", _TOKEN.sub("***", text))
