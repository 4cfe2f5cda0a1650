from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from optimum_sleb.runtime.plain import parse, parse_dataclass


@dataclass
class Inner:
    number: int
    name: str | None = None


@dataclass
class Outer:
    inner: Inner
    many: tuple[Inner, ...] = ()
    table: dict[int, float] = field(default_factory=dict)
    anything: Any = None
    choice: Literal["a", "b"] = "a"


def test_builds_nested_dataclasses() -> None:
    values = {"inner": {"number": 1}, "many": [{"number": 2, "name": "x"}], "table": {"-3": 1}, "choice": "b"}
    assert parse_dataclass(Outer, values, "file") == Outer(Inner(1), (Inner(2, "x"),), {-3: 1.0}, None, "b")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "file lacks the key 'inner'"),
        ({"inner": None}, "file.inner must be a JSON object; got NoneType"),
        ({"inner": {"number": True}}, "file.inner.number must be int; got True"),
        ({"inner": {"number": 1, "name": 2}}, "file.inner.name must be str or None; got 2"),
        ({"inner": {"number": 1}, "many": [{"number": 1}, {}]}, "file.many[1] lacks the key 'number'"),
        ({"inner": {"number": 1}, "many": {}}, "file.many must be"),
        ({"inner": {"number": 1}, "table": {"1": "x"}}, "file.table['1'] must be float; got 'x'"),
        ({"inner": {"number": 1}, "choice": "c"}, "file.choice must be one of 'a', 'b'; got 'c'"),
        ({"inner": {"number": 1}, "more": 1}, "file has the unknown key 'more'; known keys: inner, many, table"),
    ],
)
def test_says_what_does_not_fit(values: dict, message: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_dataclass(Outer, values, "file")
    assert message in str(error.value)


def test_whole_numbers_are_floats_but_truth_is_no_number() -> None:
    assert parse(float, 1, "x") == 1
    with pytest.raises(ValueError, match="x must be float; got True"):
        parse(float, True, "x")
