"""Damaged files of our own, by every door that reads them: report, recipe, journal, the entry in config.json, card."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optimum_sleb import PruningReport, SLEBConfig, SLEBPruner
from optimum_sleb.config import RECIPE_FILE_NAME
from optimum_sleb.report.folder import JOURNAL_FILE_NAME, REPORT_FILE_NAME
from optimum_sleb.search.journal import seal

from ..hub.local_hub import LocalHub
from .harness import Outcome, assert_refused, assert_right, call, run_command

pytestmark = [
    pytest.mark.long,
    pytest.mark.reliability(
        "a report, a recipe, a card or an entry in config.json that is cut, garbled, edited or of another run, by "
        "every command that reads it",
        lost="nothing; refused with one sentence, or the right result",
    ),
]
WINDOWS = ["--window-length", 32, "--max-windows", 4]

# How a file of JSON is damaged, whatever it holds.
BYTES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda old: b"",
    "blank": lambda old: b" \n",
    "cut": lambda old: old[: len(old) // 2],
    "without its end": lambda old: old.rstrip()[:-1],
    "twice": lambda old: old + old,
    "zeros": lambda old: b"\0" * len(old),
    "not UTF-8": lambda old: old.replace(b'"', b'"\xff', 1),
    "UTF-16": lambda old: old.decode().encode("utf-16"),
    "null": lambda old: b"null",
    "a list": lambda old: b"[" + old + b"]",
    "a text": lambda old: b'"{}"',
    "a number": lambda old: b"-0",
    "half a surrogate pair": lambda old: old.replace(b"{", b'{"\\ud800": 1, ', 1),
    "a key twice": lambda old: old.replace(b"{", b'{"x": 1, "x": 2, ', 1),
    "a key of escapes": lambda old: old.replace(b"{", b'{"\\u001b[2J\\u202e\\n": 1, ', 1),
    "a long key": lambda old: old.replace(b"{", b'{"' + b"k" * 10**6 + b'": 1, ', 1),
    "deep": lambda old: b"[" * 100_000,
    "a pickle": lambda old: b"\x80\x04cos\nsystem\n(S'true'\ntR.",
}
# What JSON may have but a report may not. config.json is read by transformers too, which takes these.
NUMBERS = {
    "NaN": lambda old: old.replace(b"{", b'{"seconds": NaN, ', 1),
    "overflow": lambda old: old.replace(b"{", b'{"seconds": 1e999, ', 1),
    "digits": lambda old: old.replace(b"{", b'{"seconds": ' + b"1" * 5000 + b", ", 1),
}
# What stands in the place of the file.
PLACES: dict[str, Callable[[Path], object]] = {
    "missing": lambda file: None,
    "a folder": lambda file: file.mkdir(),
    "a pipe": lambda file: os.mkfifo(file),
    "a link to itself": lambda file: file.symlink_to(file),
    "a link to a device": lambda file: file.symlink_to("/dev/zero"),
}
# Values that no field of a report may have.
WRONG: dict[str, Any] = {
    "an object": {"x": [1]},
    "lists": [[["x"]]],
    "true": True,
    "a long text": "x" * 10**5 + "\x1b[2J",
}


@pytest.fixture(scope="module")
def pruned(model_folder: Path, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "pruned"
    options = ["--num-blocks", 2, "--dataset", text_file, *WINDOWS, "--device", "cpu"]
    assert_right(run_command(["prune", "--model", model_folder, *options, "--output", folder]))
    return folder


@pytest.fixture(scope="module")
def stopped(model_folder: Path, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that was measured and not saved."""
    folder = tmp_path_factory.mktemp("sound") / "stopped"
    config = SLEBConfig(num_blocks_to_remove=2, dataset=str(text_file), window_length=32, max_windows=4)
    SLEBPruner.from_pretrained(model_folder, device_map="cpu").prune(config, progress_dir=folder)
    return folder


@pytest.fixture
def folder(pruned: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pruned, tmp_path / "pruned"))


class Doors:
    """The ways in of a folder, or of its report."""

    def __init__(self, model: Path, text: Path, output: Path) -> None:
        self.model, self.text, self.output = model, text, output

    def remove(self, folder: Path) -> Outcome:
        report = folder / REPORT_FILE_NAME
        command = ["remove", "--model", self.model, "--report", report, "--output", self.output, "--device", "cpu"]
        return run_command(command)

    def curve(self, folder: Path) -> Outcome:
        report = folder / REPORT_FILE_NAME
        options = ["--tasks", self.text, *WINDOWS, "--output", self.output.with_suffix(".png"), "--device", "cpu"]
        return run_command(["evaluate", "--model", self.model, "--report", report, "--curve", *options])

    def again(self, folder: Path) -> Outcome:
        options = ["--num-blocks", 1, "--dataset", self.text, *WINDOWS, "--device", "cpu"]
        return run_command(["prune", "--model", folder, *options, "--output", self.output])

    def check(self, folder: Path) -> Outcome:
        return run_command(["check", "--model", folder, "--device", "cpu"])

    def push(self, folder: Path) -> Outcome:
        return run_command(["push", "--folder", folder, "--repo", "me/pruned"])

    def update(self, folder: Path) -> Outcome:
        options = ["--tasks", self.text, *WINDOWS, "--update-card", "--device", "cpu"]
        return run_command(["evaluate", "--model", folder, *options])

    def export(self, folder: Path) -> Outcome:
        return run_command(["export", "--report", folder / REPORT_FILE_NAME, "--format", "mergekit-yaml"])

    def load(self, folder: Path) -> Outcome:
        return call(PruningReport.load, folder / REPORT_FILE_NAME)

    def apply(self, folder: Path) -> Outcome:
        def apply() -> None:
            report = PruningReport.load(folder)
            SLEBPruner.from_pretrained(self.model, device_map="cpu").apply(report)

        return call(apply)

    def recipe(self, folder: Path) -> Outcome:
        return call(SLEBConfig.from_pretrained, folder)


@pytest.fixture
def doors(model_folder: Path, text_file: Path, tmp_path: Path, hub: LocalHub) -> Doors:
    return Doors(model_folder, text_file, tmp_path / "out")


def damage(file: Path, how: str) -> None:
    if how in PLACES:
        file.unlink()
        PLACES[how](file)
    else:
        file.write_bytes(({**BYTES, **NUMBERS})[how](file.read_bytes()))


def edit(file: Path, path: tuple[str | int, ...], value: object) -> None:
    values = json.loads(file.read_text())
    place = values
    for name in path[:-1]:
        place = place[name]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    file.write_text(json.dumps(values))


def judge(outcome: Outcome, *names: object) -> None:
    """Either is well: where a damage does not matter to a door, its result must be right."""
    if outcome.code == 0:
        assert_right(outcome)
    else:
        assert_refused(outcome, *names)


@pytest.mark.parametrize("door", ["load", "export", "remove", "push", "update", "again"])
@pytest.mark.parametrize("how", [*BYTES, *NUMBERS, *PLACES])
def test_a_report_that_is_none(how: str, door: str, folder: Path, doors: Doors) -> None:
    damage(folder / REPORT_FILE_NAME, how)
    outcome = getattr(doors, door)(folder)
    if door == "again" and how in PLACES:
        judge(outcome, REPORT_FILE_NAME)  # without a report, what config.json says is enough
    else:
        assert_refused(outcome, REPORT_FILE_NAME)


FIELDS = [
    *((name,) for name in ("base_model", "architecture", "original_num_blocks", "blocks_before", "parameters_before")),
    *((name,) for name in ("steps", "seconds", "created", "versions", "recipe", "calibration", "search", "loading")),
    *((name,) for name in ("barred_blocks", "previous", "evaluations", "speeds", "healing", "weights_before")),
    ("depths",),
    *(("steps", 0, name) for name in ("block", "candidate_losses", "seconds", "dropped_blocks")),
    *(("calibration", name) for name in ("source", "num_windows", "num_tokens", "fingerprint")),
    *(("search", name) for name in ("method", "loss_before")),
    *(("weights_before", name) for name in ("epsilon", "values")),
    *(("recipe", name) for name in ("dataset", "sparsity", "window_length", "search")),
]


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("path", FIELDS, ids=lambda path: ".".join(map(str, path)))
def test_a_field_of_another_kind(path: tuple, value: str, folder: Path, doors: Doors) -> None:
    edit(folder / REPORT_FILE_NAME, path, WRONG[value])
    loaded = doors.load(folder)
    if loaded.code == 0:  # some texts may be long, and what no run has may be an object
        assert_right(loaded)
    else:
        assert_refused(loaded, REPORT_FILE_NAME, path[-1])
    if value == "an object":
        judge(doors.push(folder))
        judge(doors.remove(folder))


DEPTH = {"removed": [2], "sets": [{"removed": [2], "loss": 1.0}, {"removed": [3], "loss": 2.0}], "seconds": 0.1}

# Reports that are one by their form and lie. The bounds of their numbers have attacks of their own.
LIES: dict[str, list[tuple[tuple[str | int, ...], Any]]] = {
    "another block": [(("steps", 0, "block"), 0)],
    "a block that is not there": [(("steps", 0, "block"), 77)],
    "a block twice": [(("steps", 1, "block"), 2), (("steps", 0, "block"), 2)],
    "no steps": [(("steps",), [])],
    "a step too few": [(("steps", 1), ...)],
    "another architecture": [(("architecture",), "GPT2LMHeadModel")],
    "an architecture of another package": [(("architecture",), "os.system")],
    "blocks in another order": [(("blocks_before",), [5, 4, 3, 2, 1, 0])],
    "no blocks": [(("blocks_before",), [])],
    "other weights": [(("weights_before", "values"), {"model.embed_tokens.weight": 0.5})],
    "weights of no parameter": [(("weights_before", "values"), {"__class__.__init__": 0.5})],
    "a step without losses": [(("steps", 0, "candidate_losses"), {})],
    "a loss of a block that is not there": [(("steps", 0, "candidate_losses"), {"99": 1.0})],
    "no search but a calibration": [(("search",), None)],
    "a search without a calibration": [(("calibration",), None)],
    "a base model that is a path": [(("base_model",), "../../../etc")],
    "a base model of escapes": [(("base_model",), "me/\x1b[2J\u202e\n# x")],
    "a base model of zeros": [(("base_model",), "a\0b")],
    "a base model with a long name": [(("base_model",), "a" * 5000)],
    "a card of HTML": [(("architecture",), "<script>alert(1)</script>|\n---\n# x")],
    "a text that is a path": [(("calibration", "source"), "/etc/passwd\0")],
    "versions of escapes": [(("versions",), {"\x1b[2J": "{{ 7*7 }}"})],
    "depths that are none": [(("depths",), ["x"])],
    "depths of a greedy search": [(("depths",), [DEPTH])],
    "depths of other blocks": [
        (("depths",), [{**DEPTH, "removed": [77], "sets": [{"removed": [77], "loss": 1.0}]}]),
        (("steps",), [{"block": 77}]),
    ],
    "depths of no sets": [(("depths",), [{**DEPTH, "sets": []}]), (("steps",), [{"block": 2}])],
    "a depth with a refused set of escapes": [
        (("depths",), [{**DEPTH, "refused": {"\x1b[2J": "\x1b[2J"}}]),
        (("steps",), [{"block": 2}]),
    ],
    "a depth with a reason of escapes": [
        (("depths",), [{**DEPTH, "refused": {"3": "{{ 7*7 }}\x1b[2J\n# x"}}]),
        (("steps",), [{"block": 2}]),
    ],
    "a search by a criterion that is known, over sets that no recipe asks for": [
        (("depths",), [DEPTH]),
        (("steps",), [{"block": 2}]),
        (("search", "criterion"), "kl"),
        (("recipe",), None),
    ],
    "a perplexity below one": [(("search", "perplexity_after"), 0.5)],
    "itself before it": [(("previous",), "itself")],
}


@pytest.mark.parametrize("door", ["remove", "export", "push", "update", "again", "curve", "apply"])
@pytest.mark.parametrize("lie", LIES)
def test_a_report_that_lies(lie: str, door: str, folder: Path, doors: Doors) -> None:
    for path, value in LIES[lie]:
        report = json.loads((folder / REPORT_FILE_NAME).read_text())
        edit(folder / REPORT_FILE_NAME, path, report if value == "itself" else value)
    judge(getattr(doors, door)(folder))


@pytest.mark.parametrize("how", [*BYTES, *NUMBERS, *PLACES])
def test_a_recipe_that_is_none(how: str, folder: Path, doors: Doors) -> None:
    damage(folder / RECIPE_FILE_NAME, how)
    assert_refused(doors.recipe(folder), RECIPE_FILE_NAME)


# What they name is looked for when the data are read.
ANY_TEXT = (
    *("dataset", "dataset_config", "dataset_split", "dataset_revision"),
    *("encoding", "text_column", "document_separator"),
)


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("name", list(SLEBConfig(sparsity=0.5).to_dict()))
def test_a_recipe_of_another_kind(name: str, value: str, folder: Path, doors: Doors) -> None:
    edit(folder / RECIPE_FILE_NAME, (name,), WRONG[value])
    if (value, name) in {*(("a long text", one) for one in ANY_TEXT), ("true", "bos_per_window")}:
        assert_right(doors.recipe(folder))
    else:
        assert_refused(doors.recipe(folder), RECIPE_FILE_NAME, name)


ENTRIES: dict[str, Any] = {
    "a list": [],
    "a text": "x" * 10**6,
    "a number": 7,
    "false": False,
    "empty": {},
    "unknown": {"original_num_blocks": 6, "removed_blocks": [1, 2], "\x1b[2J": 1},
    "no number": {"original_num_blocks": "6"},
    "no list": {"original_num_blocks": 6, "removed_blocks": 2},
    "a block twice": {"original_num_blocks": 6, "removed_blocks": [1, 1]},
    "a block that is not there": {"original_num_blocks": 6, "removed_blocks": [1, 77]},
    "a block too many": {"original_num_blocks": 6, "removed_blocks": [1, 2, 3]},
    "all blocks": {"original_num_blocks": 4, "removed_blocks": []},
    "a huge number": {"original_num_blocks": 10**30, "removed_blocks": []},
    "many blocks": {"original_num_blocks": 6, "removed_blocks": list(range(200_000))},
    "a base model of escapes": {"original_num_blocks": 6, "removed_blocks": [1, 2], "base_model": "\x1b[2J\n"},
}


@pytest.mark.parametrize("door", ["again", "push", "check", "update"])
@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_in_the_config(entry: str, door: str, folder: Path, doors: Doors) -> None:
    edit(folder / "config.json", ("sleb",), ENTRIES[entry])
    outcome = getattr(doors, door)(folder)
    if door == "update" and entry in ("all blocks", "a block too many"):
        assert outcome.code == 2
    judge(outcome)


# The journal has a checksum in every line; who edits a line knowingly can make one.
LINES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "no header": lambda lines: lines[1:],
    "two headers": lambda lines: [lines[0], *lines],
    "lines in another order": lambda lines: [lines[0], *lines[:0:-1]],
    "a line twice": lambda lines: [*lines, lines[-1]],
    "an empty line": lambda lines: [*lines[:2], b"", *lines[2:]],
    "a line of text": lambda lines: [*lines, b"losses"],
    "a line of zeros": lambda lines: [*lines, b"\0" * 4096],
    "a line of a list": lambda lines: [*lines, _sealed("[1]")],
    "a line of null": lambda lines: [*lines, _sealed("null")],
    "a line of nothing": lambda lines: [*lines, seal({}).encode()],
    "a line cut": lambda lines: [lines[0], lines[1][:40], *lines[2:]],
    "a loss as text": lambda lines: [*lines[:-1], _with(lines[-1], losses=[["x"]])],
    "losses of no block": lambda lines: [*lines[:-1], _with(lines[-1], losses=[])],
    "windows that are not there": lambda lines: [*lines[:-1], _with(lines[-1], start=10**30, stop=10**30 + 1)],
    "windows below zero": lambda lines: [*lines[:-1], _with(lines[-1], start=-1)],
    "a key that is none": lambda lines: [*lines[:-1], _with(lines[-1], key="\x1b[2J" * 10**5)],
    "a key that is a list": lambda lines: [*lines[:-1], _with(lines[-1], key=["x"])],
    "passes below zero": lambda lines: [*lines[:-1], _with(lines[-1], block_passes=-(10**30))],
    "deep": lambda lines: [*lines, _sealed('{"key": ' + "[" * 100_000 + "]" * 100_000 + "}")],
    "a header of escapes": lambda lines: [_with(lines[0], model="\x1b[2J" * 10**5), *lines[1:]],
    "a header of another kind": lambda lines: [_with(lines[0], recipe=["x"]), *lines[1:]],
}


def _with(line: bytes, **changes: Any) -> bytes:
    row = json.loads(line)
    del row["checksum"]
    return seal(row | changes).encode()


def _sealed(text: str) -> bytes:
    """A line with the right checksum around what is no object."""
    return seal({"x": 0}).encode().replace(b'{"x": 0', text.encode()) if text else b""


def _resume(stopped: Path, doors: Doors, tmp_path: Path, damaged: Callable[[Path], object]) -> Outcome:
    folder = Path(shutil.copytree(stopped, tmp_path / "stopped"))
    damaged(folder / JOURNAL_FILE_NAME)
    options = ["--num-blocks", 2, "--dataset", doors.text, *WINDOWS, "--device", "cpu", "--resume"]
    return run_command(["prune", "--model", doors.model, *options, "--output", folder])


@pytest.mark.parametrize("how", LINES)
def test_a_journal_with_lines_that_are_wrong(how: str, stopped: Path, doors: Doors, tmp_path: Path) -> None:
    def damaged(file: Path) -> None:
        file.write_bytes(b"".join(line + b"\n" for line in LINES[how](file.read_bytes().splitlines())))

    judge(_resume(stopped, doors, tmp_path, damaged), JOURNAL_FILE_NAME)


# Without its end, the journal is one whose last line was being written: that line is measured again.
@pytest.mark.parametrize("how", [how for how in (*BYTES, *PLACES) if how != "without its end"])
def test_a_journal_that_is_none(how: str, stopped: Path, doors: Doors, tmp_path: Path) -> None:
    outcome = _resume(stopped, doors, tmp_path, lambda file: damage(file, how))
    assert_refused(outcome, "journal")


CARDS: dict[str, bytes] = {
    "empty": b"",
    "not UTF-8": b"---\nlicense: \xff\n---\n",
    "zeros": b"\0" * 4096,
    "front matter that is a list": b"---\n- a\n- b\n---\n# x\n",
    "front matter without an end": b"---\nlicense: mit\n",
    "front matter that is no YAML": b"---\n{{{:\n\t- ]\n---\n# x\n",
    "front matter with an object of Python": b"---\nlicense: !!python/object/apply:os.system ['true']\n---\n",
    "front matter that grows": b"---\na: &a [x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b]\n---\n",
    "front matter that is deep": b"---\nlicense: " + b"[" * 20_000 + b"\n---\n",
    "a licence that is an object": b"---\nlicense: {a: b}\nlanguage: [1, {a: b}]\n---\n",
    "results that are none": b"---\nmodel-index: [{name: 1}]\n---\n",
    "results of another kind": b"---\nmodel-index: yes\nmodel_name: [x]\n---\n",
    "a template": b"---\nlicense: mit\n---\n{% include '/etc/passwd' %} {{ 7*7 }}\n",
    "a date for a licence": b"---\nlicense: 2026-01-01\nlanguage: no\n---\n",
}


@pytest.mark.parametrize("door", ["update", "push"])
@pytest.mark.parametrize("how", CARDS)
def test_a_card_that_was_changed(how: str, door: str, folder: Path, doors: Doors) -> None:
    (folder / "README.md").write_bytes(CARDS[how])
    judge(getattr(doors, door)(folder))


@pytest.mark.parametrize("door", ["update", "push"])
@pytest.mark.parametrize("how", PLACES)
def test_a_card_that_is_none(how: str, door: str, folder: Path, doors: Doors) -> None:
    damage(folder / "README.md", how)
    assert_refused(getattr(doors, door)(folder), "README.md")
