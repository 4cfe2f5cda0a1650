"""Strict reading of JSON that others wrote: files of any size, depth and content, and values of the wrong type."""

import json
import math
import re
import reprlib
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_SHORT = reprlib.Repr()
_SHORT.maxstring, _SHORT.maxlevel = 60, 3

MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Within:
    """Bounds of a number, both included, in a hint: `Annotated[int, Within(1, 10)]`."""

    least: float
    most: float = math.inf

    def check(self, value: float, path: str) -> None:
        """Raise `ValueError` if a value lies outside."""
        if not self.least <= value <= self.most:
            bounds = f"at least {self.least}" if self.most == math.inf else f"between {self.least} and {self.most}"
            raise ValueError(f"{path} must be {bounds}; got {shown(value)}.")


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


def parse(hint: Any, value: Any, path: str) -> Any:
    """Return a JSON value as the type of a hint, dataclasses included; `path` names the value in the error message.

    >>> parse(tuple[int, ...], [1, 2], "blocks")
    (1, 2)
    >>> parse(float | None, "much", "sparsity")
    Traceback (most recent call last):
    ...
    ValueError: sparsity must be float or None; got 'much'.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if is_dataclass(hint):
        return parse_dataclass(hint, value, path)  # type: ignore[arg-type]
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{path} must be one of {', '.join(map(repr, arguments))}; got {shown(value)}.")
        return value
    if origin is Annotated:
        parsed = parse(arguments[0], value, path)
        for bounds in arguments[1:]:
            bounds.check(parsed, path)
        return parsed
    if origin in (UnionType, Union):
        return _parse_union(arguments, value, path)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(parse(arguments[0], item, f"{path}[{number}]") for number, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {
            _parse_key(arguments[0], key, path): parse(arguments[1], item, f"{path}[{shown(key)}]")
            for key, item in value.items()
        }
    # bool is an int to Python, but `num_samples: true` is a mistake: hence no isinstance. A float may be whole.
    if type(value) is hint or (hint is float and type(value) is int and abs(value) < 10**308):
        return value
    raise ValueError(f"{path} must be {_name_of(hint)}; got {shown(value)}.")


def parse_dataclass(kind: type[T], value: Any, path: str) -> T:
    """Build a dataclass from a dictionary of its fields; an unknown or missing key raises `ValueError`."""
    if not isinstance(value, dict):
        raise ValueError(f"{path} must be a JSON object; got {type(value).__name__}.")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    hints = get_type_hints(kind, include_extras=True)
    for name in value:
        if name not in known:
            raise ValueError(f"{path} has the unknown key {shown(name)}; known keys: {', '.join(known)}.")
    for name, field in known.items():
        if name not in value and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{path} lacks the key {name!r}.")
    return kind(**{name: parse(hints[name], item, f"{path}.{name}") for name, item in value.items()})


def shown(value: Any) -> str:
    """Return a value as an error message shows it: a long one by its beginning and end, a deep one by its outside.

    >>> shown(["a" * 1000])
    "['aaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaaaaaaaaa']"
    """
    return _SHORT.repr(value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shown(twice)} stands twice in an object")
    return values


def _parse_float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def _refuse(text: str) -> Any:
    raise ValueError(f"{shown(text)[1:-1]} is not a finite number")


def _parse_union(options: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and type(None) in options:
        return None
    others = [option for option in options if option is not type(None)]
    if len(others) == 1 and (get_origin(others[0]) or is_dataclass(others[0])):
        return parse(others[0], value, path)
    for option in others:
        try:
            return parse(option, value, path)
        except ValueError:
            continue
    raise ValueError(f"{path} must be {' or '.join(map(_name_of, options))}; got {shown(value)}.")


def _parse_key(hint: Any, key: Any, path: str) -> Any:
    # Keys of JSON are text. Only the form that Python writes is taken, or "1" and "01" would be the same key.
    bare = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if bare is int and isinstance(key, str) and re.fullmatch(r"0|-?[1-9][0-9]{0,18}", key):
        key = int(key)
    return parse(hint, key, f"a key of {path}")


def _name_of(hint: Any) -> str:
    return "None" if hint is type(None) else getattr(hint, "__name__", str(hint))
