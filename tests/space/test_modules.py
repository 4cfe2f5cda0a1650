"""The parts of the page that need no browser: what is taken in, limits, work that is stopped, pictures, files."""

import importlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from optimum_sleb import SLEBConfig, SLEBError, SLEBPruner
from optimum_sleb.config.presets import PRESETS

from ..conftest import ROOT, make_text

SPACE = ROOT / "examples" / "space"
NAMES = ("limits", "source", "job", "following", "pictures", "search", "session", "result")


@pytest.fixture(scope="module")
def space() -> Iterator[Any]:
    """The modules of the page, which import each other by their short names, as they do in a Space."""
    before = set(sys.modules)
    sys.path.insert(0, str(SPACE))
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
    sys.path.remove(str(SPACE))
    for name in set(sys.modules) - before:
        if name in NAMES:
            del sys.modules[name]


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(SLEBError) as error:
        call()
    return str(error.value)


def packed(path: Path, files: dict[str, bytes]) -> str:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return str(path)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "holds no model"),
        ({"a/notes.txt": b""}, "holds no model"),
        ({f"{number}.txt": b"" for number in range(1001)}, "holds 1,001 files"),
        ({"config.json": b"{}", "model.safetensors": bytes(3_000_000)}, "and this page takes at most 0.002 GB"),
    ],
    ids=["empty", "no model", "many files", "bomb"],
)
def test_archives_that_are_refused(space: Any, tmp_path: Path, files: dict[str, bytes], says: str) -> None:
    archive = packed(tmp_path / "model.zip", files)
    limits = space.limits.Limits(gigabytes=0.002)
    assert says in refused(lambda: space.source.source_of("", archive, tmp_path / "in", limits))


def test_nothing_is_unpacked_outside(space: Any, tmp_path: Path) -> None:
    names = ("../outside.txt", "/outside.txt", "a/../../outside.txt", "model/config.json")
    archive = packed(tmp_path / "..model.zip", dict.fromkeys(names, b"{}"))
    (tmp_path / "in").mkdir()
    before = set(tmp_path.rglob("*"))
    space.source.source_of("", archive, tmp_path / "in", space.limits.Limits())
    assert all((tmp_path / "in") in path.parents for path in set(tmp_path.rglob("*")) - before)
    assert not Path("/outside.txt").exists()


@pytest.mark.parametrize("name", ["/etc", "..", "tests/space", "a b/c", "https://hub/me/a", "me/a/b", "x" * 500])
def test_names_that_are_none(space: Any, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert "is no name on the Hub" in refused(
        lambda: space.source.source_of(name, None, tmp_path, space.limits.Limits())
    )


def test_a_folder_is_taken_where_that_is_allowed(space: Any, model_folder: Path, tmp_path: Path) -> None:
    source = space.source.source_of(str(model_folder), None, tmp_path, space.limits.Limits(folders=True))
    assert source.load().blocks == tuple(range(6))


@pytest.mark.parametrize("preset", PRESETS)
def test_recipes(space: Any, preset: str) -> None:
    given = {**PRESETS[preset], "window_length": 256, "max_windows": 8}
    assert space.search.recipe_of(preset, "share", 20, 4, 256, 8) == SLEBConfig(sparsity=0.2, **given)
    assert space.search.recipe_of(preset, "number", 20, 4, 256, 8) == SLEBConfig(num_blocks_to_remove=4, **given)
    assert "must be a whole number" in refused(lambda: space.search.recipe_of(preset, "number", 20, None, 256, 8))
    assert "must be a whole number" in refused(lambda: space.search.recipe_of(preset, "number", 20, 2.5, 256, 8))
    assert space.search.recipe_of(preset, "share", 20, None, 256, 8).sparsity == 0.2  # the number is hidden then


@pytest.mark.long
@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_told_is_what_the_report_says(space: Any, model_folder: Path, tmp_path: Path, preset: str) -> None:
    """The losses of candidates, turned into the metric while the search runs, are those of the report."""
    text = tmp_path / "text.txt"
    text.write_text(make_text(400))
    told: list[Any] = []
    job = SimpleNamespace(tell=lambda news=None: told.append(news), stop_soon=SimpleNamespace(is_set=lambda: False))
    config = space.search.recipe_of(preset, "number", 20, 3, 20, 12)
    source = space.source.Source(str(model_folder), "tiny")
    found = space.search.search(job, source, config, text, space.limits.Limits())
    *_, last = (news for news in told if isinstance(news, space.following.View))
    assert last.removed == tuple(found.report.removed_blocks) or preset == "best"
    for step, of_report in zip(last.steps, found.view.steps, strict=True):
        if preset == "published":
            assert step.value == pytest.approx(of_report.value)
        common = step.others.keys() & of_report.others.keys()
        assert len(common) >= len(step.others) - 1
        for name in common:
            assert step.others[name] == pytest.approx(of_report.others[name])
    for depth in range(1, 4):
        made = space.search.make(job, found, depth)
        parameters = sum(one.numel() for one in made.model.parameters())
        assert found.sizes[depth][0] == parameters
        assert set(made.report.removed_blocks) == space.search.blocks_of(found, depth)


@pytest.mark.long
def test_a_search_ends_in_time(space: Any, model_folder: Path, text_file: Path) -> None:
    job = space.job.Job(lambda job: None)
    config = space.search.recipe_of("published", "number", 20, 3, 20, 4)
    source = space.source.Source(str(model_folder), "tiny")
    found = space.search.search(job, source, config, text_file, space.limits.Limits(minutes=0))
    assert len(found.view.steps) == 1
    assert "The 0 minutes of this page were over" in found.note


@pytest.mark.long
def test_a_model_that_was_pruned_before(space: Any, model_folder: Path, text_file: Path, tmp_path: Path) -> None:
    pruner = SLEBPruner.from_pretrained(model_folder)
    pruner.remove([2])
    again = pruner.save_pretrained(tmp_path / "again")
    job = space.job.Job(lambda job: None)
    config = space.search.recipe_of("published", "number", 20, 2, 20, 4)
    found = space.search.search(
        job, space.source.Source(str(again), "again"), config, text_file, space.limits.Limits()
    )
    assert found.view.blocks == (0, 1, 3, 4, 5)
    assert space.search.blocks_of(found, 1) == {2, found.report.steps[0].block}
    assert "4</b><span>of 5" in space.result.numbers(found, 1)


def test_one_archive_at_a_time(space: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(folder: Path, overwrite: bool) -> Path:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        return folder

    monkeypatch.setattr(space.result, "make", lambda job, found, depth: SimpleNamespace(save_pretrained=save))
    job, found = space.job.Job(lambda job: None), SimpleNamespace(source=SimpleNamespace(shown="me/tiny"))
    for depth in (1, 2, 2):
        made = space.result.archive(job, found, depth, tmp_path)
        assert list(tmp_path.iterdir()) == [made]
        assert zipfile.ZipFile(made).namelist() == [f"tiny-sleb-{depth}/config.json"]


def test_a_visitor_comes_while_another_one_asks_who_is_served(space: Any) -> None:
    sessions = space.session.Sessions()

    class Arrival:
        @property
        def is_running(self) -> bool:
            sessions.of("new")
            return False

    sessions.of("there").job = Arrival()
    assert not sessions.is_one_served
    sessions.of("there").job = None
    sessions.close("there")
    sessions.close("new")


def test_a_job_that_is_cancelled(space: Any) -> None:
    def work(job: Any) -> None:
        while True:
            job.tell("on")

    job = space.job.Job(work)
    with pytest.raises(space.job.CancelledError):
        for news in job.follow():
            assert news in ("on", None)
            job.cancelled.set()


def test_errors_are_sentences(space: Any) -> None:
    sentence = space.session.sentence_of
    assert sentence(SLEBError("What was wrong; what to do.")) == "What was wrong; what to do."
    assert sentence(MemoryError()) == (
        "The machine of this page has too little memory for this model; take a smaller one."
    )
    assert "secret" not in sentence(KeyError("secret"))


def test_pictures_of_strange_numbers(space: Any) -> None:
    step = space.following.Step(3.0, {"1": float("inf"), "2": float("nan"), "3": 1e300, "4": 3.05})
    view = space.following.View("perplexity", (0, 1, 2, 3, 4), 3.0, 1, (step,), (0,))
    drawn = space.pictures.chart(view, 1)
    assert drawn.count('class="sleb-lost" style') == 1
    assert "3 lie higher" in drawn
    assert "&lt;b&gt;" in space.pictures.strip((0,), (), {0: "<b>"})
    endless = space.following.View("perplexity", (0, 1), 3.0, 1, (space.following.Step(float("inf")),), (0,))
    assert "inf removed" not in space.pictures.chart(endless, 1)
    view = space.following.View("<i>", (0, 1), -1.0, None, (), ())
    assert "<i>" not in space.pictures.chart(view).partition("</p>")[0].partition("sleb-title")[2]


def test_what_a_space_reads() -> None:
    front = yaml.safe_load((SPACE / "README.md").read_text().split("---")[1])
    assert front["sdk"] == "gradio"
    assert f"gradio=={front['sdk_version']}" in (ROOT / "constraints.txt").read_text().splitlines()
    assert (SPACE / front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60
    wanted = set((SPACE / "requirements.txt").read_text().splitlines())
    needs = re.search(r"^dependencies = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S).group(1)
    assert set(re.findall(r'"(.+?)"', needs)) <= wanted


def test_files_are_short() -> None:
    assert {file.name for file in SPACE.glob("*.py") if len(file.read_text().splitlines()) > 150} == set()


@pytest.mark.long
def test_what_is_collected_imports_alone(tmp_path: Path) -> None:
    subprocess.run([sys.executable, SPACE / "collect.py", tmp_path / "space"], check=True)
    code = "import search, optimum_sleb; print(optimum_sleb.__file__); assert search.EXAMPLE_TEXT.is_file()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "space", capture_output=True, text=True)
    assert str(tmp_path / "space") in done.stdout, done.stderr
