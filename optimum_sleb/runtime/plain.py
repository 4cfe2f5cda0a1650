"""Dataclasses from JSON values, each checked against the type hint of its field."""

import re
from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def parse(hint: Any, value: Any, place: str) -> Any:
    """Return a JSON value as the type of a hint, dataclasses included; `place` names the value in the error message.

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
        return parse_dataclass(hint, value, place)  # type: ignore[arg-type]
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{place} must be one of {', '.join(map(repr, arguments))}; got {value!r}.")
        return value
    if origin is UnionType:
        return _parse_union(arguments, value, place)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(parse(arguments[0], item, f"{place}[{number}]") for number, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {
            _parse_key(arguments[0], key, place): parse(arguments[1], item, f"{place}[{key!r}]")
            for key, item in value.items()
        }
    # bool is an int to Python, but `num_samples: true` is a mistake: hence no isinstance. A float may be whole.
    if type(value) is hint or (hint is float and type(value) is int):
        return value
    raise ValueError(f"{place} must be {_name_of(hint)}; got {value!r}.")


def parse_dataclass(kind: type[T], value: Any, place: str) -> T:
    """Build a dataclass from a dictionary of its fields; an unknown or missing key raises `ValueError`."""
    if not isinstance(value, dict):
        raise ValueError(f"{place} must be a JSON object; got {type(value).__name__}.")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    for name in value:
        if name not in known:
            raise ValueError(f"{place} has the unknown key {name!r}; known keys: {', '.join(known)}.")
    for name, field in known.items():
        if name not in value and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{place} lacks the key {name!r}.")
    return kind(**{name: parse(hints[name], item, f"{place}.{name}") for name, item in value.items()})


def _parse_union(options: tuple[Any, ...], value: Any, place: str) -> Any:
    if value is None and type(None) in options:
        return None
    others = [option for option in options if option is not type(None)]
    if len(others) == 1 and (get_origin(others[0]) or is_dataclass(others[0])):
        return parse(others[0], value, place)
    for option in others:
        try:
            return parse(option, value, place)
        except ValueError:
            continue
    raise ValueError(f"{place} must be {' or '.join(map(_name_of, options))}; got {value!r}.")


def _parse_key(hint: Any, key: Any, place: str) -> Any:
    # Keys of JSON are text. Only the form that Python writes is taken, or "1" and "01" would be the same key.
    if hint is int and isinstance(key, str) and re.fullmatch(r"0|-?[1-9][0-9]{0,18}", key):
        return int(key)
    return parse(hint, key, f"a key of {place}")


def _name_of(hint: Any) -> str:
    return "None" if hint is type(None) else getattr(hint, "__name__", str(hint))
