"""Strict reading of JSON files that others wrote, which may have any size, depth and content."""

import json
import math
from pathlib import Path
from typing import Any

MAX_BYTES = 64 * 2**20


def read_json(file: str | Path, *, finite: bool = True) -> Any:
    """Read a JSON file; raise `ValueError` for repeated keys, more than 64 MB, deep nesting or text that is not UTF-8.
    `finite` also refuses `NaN`, `Infinity` and numbers that overflow: JSON has none of them, but config files of
    transformers do. The message of the error is the end of a sentence.
    """
    # The bytes read are counted, because a file may grow and a pipe has no size.
    with open(file, "rb") as opened:
        content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES // 2**20} MB")
    checks: dict[str, Any] = {"parse_float": _parse_float, "parse_constant": _refuse} if finite else {}
    try:
        values = json.loads(content.decode("utf-8"), object_pairs_hook=_object, **checks)
        # json.loads takes half of a surrogate pair, which would fail only when it is written to a file.
        json.dumps(values, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return values


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice in an object")
    return values


def _parse_float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is not a finite number")
