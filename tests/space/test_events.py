"""What the page is sent while work runs."""

import importlib
from types import SimpleNamespace

import pytest

from ..conftest import ROOT


def test_each_beat_says_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that an update which a busy browser lost comes back with the next one."""
    gradio = pytest.importorskip("gradio", reason="run `make space-test`")
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "space"))
    names = ("events", "form", "limits", "following", "pictures")
    events, form, limits, following, pictures = map(importlib.import_module, names)
    allowed = limits.Limits.of_environment()
    with gradio.Blocks():
        page = form.Form(allowed, on_space=False)
    view = following.View("perplexity", (0, 1, 2), 9.0, 2, (following.Step(11.0, {"1": 12.0}),), (2,))
    session = SimpleNamespace(
        run=lambda work: iter([None, view, None, None]), note="", job=SimpleNamespace(result="the result")
    )
    _, starting, *beats, end = events.Events(page, allowed).at_work(session, lambda job: None, lambda result: {})
    for beat in (starting, *beats):
        assert beat[page.ways_out]["visible"] is True
        assert beat[page.prune]["interactive"] is False
        assert beat[page.progress]
    assert len(beats) == 3
    assert {beat[page.chart] for beat in beats} == {pictures.chart(view)}
    assert all("sleb-gone" in beat[page.strip] for beat in beats)
    assert end[page.ways_out]["visible"] is False
