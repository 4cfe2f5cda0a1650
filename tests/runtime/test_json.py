from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from optimum_sleb import ConfigError, PruningReport, ReportError, SLEBConfig
from optimum_sleb.models.provenance import provenance_from_file
from optimum_sleb.runtime.json import MAX_BYTES, Within, parse, parse_dataclass, read_json

REFUSED = {
    "nothing": (b"", "Expecting value"),
    "half": (b'{"sparsity": 0.2', "Expecting ',' delimiter"),
    "no UTF-8": (b'{"dataset": "\xff"}', "can't decode byte"),
    "half a character": (rb'{"dataset": "\ud800"}', "surrogates not allowed"),
    "deep lists": (b"[" * 200_000, "nested too deeply"),
    "deep objects": (b'{"a":' * 200_000, "nested too deeply"),
    "deep and closed": (b"[" * 50_000 + b"]" * 50_000, "nested too deeply"),
    "a key twice": (b'{"sparsity": 0.2, "seed": 1, "sparsity": 0.3}', "the key 'sparsity' stands twice"),
    "a long number": (b'{"seed": ' + b"1" * 5_000 + b"}", "Exceeds the limit"),
}
NOT_FINITE = {
    "not a number": (b'{"sparsity": NaN}', "NaN is not a finite number"),
    "infinity": (b'{"sparsity": -Infinity}', "-Infinity is not a finite number"),
    "overflow": (b'{"sparsity": 1e999}', "1e999 is not a finite number"),
}


@pytest.mark.parametrize("name", [*REFUSED, *NOT_FINITE])
def test_refusals(name: str, tmp_path: Path) -> None:
    content, message = (REFUSED | NOT_FINITE)[name]
    (tmp_path / "sleb_config.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_json(tmp_path / "sleb_config.json")
    with pytest.raises(ReportError, match=f"sleb_config.json is not valid JSON .*{message}"):
        SLEBConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", [*REFUSED, *NOT_FINITE])
def test_refusals_in_a_report(name: str, tmp_path: Path) -> None:
    content, message = (REFUSED | NOT_FINITE)[name]
    (tmp_path / "sleb_report.json").write_bytes(content)
    with pytest.raises(ReportError, match=f"{tmp_path}/sleb_report.json is not valid JSON .*{message}"):
        PruningReport.load(tmp_path)


@pytest.mark.parametrize(
    ("file_name", "load"),
    [("sleb_config.json", SLEBConfig.from_pretrained), ("sleb_report.json", PruningReport.load)],
)
def test_huge_files_are_not_read_whole(file_name: str, load: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / file_name
    with path.open("wb") as opened:
        opened.truncate(100 * MAX_BYTES)  # sparse: it takes no room on the disk
    with pytest.raises(ReportError, match="it is larger than 64 MB"):
        load(tmp_path)


@pytest.mark.parametrize("content", ['{"sparsity": "0.2"}', '{"sparsity": true}', '{"sparsity": 0.2, "seed": 1.5}'])
def test_wrong_types_in_a_recipe(content: str, tmp_path: Path) -> None:
    (tmp_path / "sleb_config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"must be (float|int)"):
        SLEBConfig.from_pretrained(tmp_path)


class TestConfigOfTransformers:
    """`config.json` belongs to transformers; only its entry `sleb` is ours."""

    def test_infinity_is_allowed(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(
            '{"time_step_limit": [0.0, Infinity], "sleb": {"original_num_blocks": 3}}'
        )
        assert provenance_from_file(tmp_path / "config.json").blocks == (0, 1, 2)

    @pytest.mark.parametrize("name", REFUSED)
    def test_malformed(self, name: str, tmp_path: Path) -> None:
        content, message = REFUSED[name]
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(ReportError, match=f"config.json is not a JSON object .*{message}"):
            provenance_from_file(tmp_path / "config.json")

    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            ("3", "must be a JSON object; got int"),
            ("{}", "lacks the key 'original_num_blocks'"),
            ('{"original_num_blocks": 6, "colour": 1}', "unknown key 'colour'"),
            ('{"original_num_blocks": "6"}', "must be int; got '6'"),
            ('{"original_num_blocks": NaN}', "must be int; got nan"),
            ('{"original_num_blocks": 1000000000000}', "between 1 and 10000; got 1000000000000"),
            ('{"original_num_blocks": -6}', "between 1 and 10000; got -6"),
            ('{"original_num_blocks": 6, "removed_blocks": [2, 2]}', "block 2, .* named twice"),
            ('{"original_num_blocks": 6, "removed_blocks": [-1]}', "block -1, which is not one of 6"),
            ('{"original_num_blocks": 6, "removed_blocks": [6]}', "block 6, which is not one of 6"),
            ('{"original_num_blocks": 6, "removed_blocks": [[2]]}', r"removed_blocks\[0\] must be int"),
        ],
    )
    def test_entry_of_this_package(self, entry: str, message: str, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(f'{{"sleb": {entry}}}')
        with pytest.raises(ReportError, match=message):
            provenance_from_file(tmp_path / "config.json")


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
    with pytest.raises(ValueError, match="x must be float; got 1000"):
        parse(float, 10**309, "x")


SMALL = Annotated[int, Within(1, 10)]


def test_numbers_within_bounds() -> None:
    assert parse(dict[SMALL, tuple[SMALL, ...]], {"3": [1, 10]}, "x") == {3: (1, 10)}
    assert parse(SMALL | None, None, "x") is None


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (SMALL, 0, "x must be between 1 and 10; got 0."),
        (SMALL | None, 11, "x must be between 1 and 10; got 11."),
        (SMALL, True, "x must be int; got True."),
        (tuple[SMALL, ...], [1, -1], "x[1] must be between 1 and 10; got -1."),
        (dict[SMALL, str], {"11": ""}, "a key of x must be between 1 and 10; got 11."),
        (Annotated[float, Within(0)], -0.5, "x must be at least 0; got -0.5."),
    ],
)
def test_numbers_outside_of_their_bounds(hint: Any, value: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:
        parse(hint, value, "x")
    assert str(error.value) == message


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(ValueError) as error:
        parse(int, "a" * 10**6, "x")
    assert len(str(error.value)) < 300
