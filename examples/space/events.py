"""What happens when a visitor presses a button."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from following import View
from form import Form
from limits import Limits
from pictures import bar, chart, strip, waiting
from result import archive, numbers, push, size_in_words
from search import blocks_of, check, recipe_of, search, text_of
from session import Session, Sessions, sentence_of
from source import source_of

Page = dict[Any, Any]


class Events:
    """The handlers of the page's events; each returns or yields what changes on the page."""

    def __init__(self, form: Form, limits: Limits) -> None:
        self._form, self._limits, self._sessions = form, limits, Sessions()

    def at_work(self, session: Session, work: Callable[[Any], Any], show: Callable[[Any], Page]) -> Iterator[Page]:
        """Do some work, and yield how far it is, and at the end its result, or why there is none."""
        form, began, last = self._form, time.monotonic(), "Starting"
        yield form.busy(waiting(last, 0.0))
        # All is sent at each beat, though it changes seldom: a browser that is short of time loses updates.
        try:
            for news in session.run(work):
                last, elapsed = news or last, time.monotonic() - began
                if isinstance(last, View):
                    pictures = {form.chart: chart(last), form.strip: strip(last.blocks, last.removed)}
                    yield {**form.busy(bar(last, elapsed, session.note)), **pictures}
                else:
                    yield form.busy(waiting(session.note or last, elapsed))
            yield {**form.idle(), **show(session.job.result)}
        except Exception as error:
            yield form.idle(sentence_of(error))

    def on_ask(self) -> Page:
        """Show that a button was pressed, and what it waits for: work is done for one visitor after the other."""
        what = "Waiting until another visitor is served" if self._sessions.is_one_served else "Starting"
        return {**self._form.busy(waiting(what, 0.0)), self._form.ways_out: gr.update(visible=False)}

    def on_check(self, name: str, upload: str | None, request: gr.Request) -> Iterator[Page]:
        """Show which blocks of the model may go."""
        session = self._sessions.of(request.session_hash)

        def show(checked: Any) -> Page:
            numbers_of = sorted((*checked.removable, *checked.barred))
            told = f"{checked.architecture}: {len(checked.removable)} of {checked.num_blocks} blocks can be removed."
            shown = {
                self._form.strip: strip(numbers_of, (), checked.barred),
                self._form.chart: "",
                self._form.result: gr.update(visible=False),
            }
            return {**self._form.idle(told, "good"), **shown}

        yield from self.at_work(
            session, lambda job: check(job, source_of(name, upload, session.folder, self._limits)), show
        )

    def on_prune(
        self, name: str, upload: str | None, preset: str, by: str, share: float, number: float,
        text: str, text_file: str | None, length: float, windows: float, request: gr.Request,
    ) -> Iterator[Page]:  # fmt: skip
        """Search, and show the result at its last depth."""
        session = self._sessions.of(request.session_hash)
        session.found = None

        def work(job: Any) -> Any:
            config = recipe_of(preset, by, share, number, length, windows)
            calibration = text_of(text, text_file, session.folder, self._limits)
            return search(
                job, source_of(name, upload, session.folder, self._limits), config, calibration, self._limits
            )

        def show(found: Any) -> Page:
            session.found, most = found, len(found.view.steps)
            slider = gr.update(minimum=0 if most == 1 else 1, maximum=most, value=most)
            told = self._form.idle(found.note, "note") if found.note else {}
            shown = {self._form.result: gr.update(visible=True), self._form.depth: slider}
            return {**told, **shown, **self.at_depth(session, most)}

        hidden = {self._form.result: gr.update(visible=False), self._form.chart: "", self._form.strip: ""}
        yield hidden
        yield from self.at_work(session, work, show)

    def at_depth(self, session: Session, depth: int) -> Page:
        """Return the pictures and numbers of a depth; what was made for another one is put away."""
        found = session.found
        return {
            self._form.strip: strip(found.view.blocks, blocks_of(found, depth)),
            self._form.chart: chart(found.view, depth),
            self._form.numbers: numbers(found, depth),
            self._form.download: gr.update(visible=False),
        }

    def on_depth(self, depth: float, request: gr.Request) -> Page:
        """Show another depth of the search."""
        session = self._sessions.of(request.session_hash)
        return self.at_depth(session, max(1, int(depth))) if session.found else {self._form.message: ""}

    def on_make(self, depth: float, request: gr.Request) -> Iterator[Page]:
        """Make the model of a depth, and offer it as a zip."""
        session = self._sessions.of(request.session_hash)

        def show(file: Path) -> Page:
            label = f"Download {file.name} ({size_in_words(file.stat().st_size)})"
            return {self._form.download: gr.update(value=str(file), label=label, visible=True)}

        yield from self.at_work(
            session, lambda job: archive(job, session.last(), max(1, int(depth)), session.folder), show
        )

    def on_push(
        self, depth: float, repository: str, private: bool, token: str | None, request: gr.Request
    ) -> Iterator[Page]:
        """Push the model of a depth; the token leaves the page at once."""
        session = self._sessions.of(request.session_hash)
        yield {self._form.token: ""}
        work = partial(push, depth=max(1, int(depth)), repository=repository, private=private, token=token)
        yield from self.at_work(
            session,
            lambda job: work(job, session.last()),
            lambda address: self._form.idle(f"Pushed: {address}", "good"),
        )

    def on_push_signed_in(
        self, depth: float, repository: str, private: bool, request: gr.Request, token: gr.OAuthToken | None
    ) -> Iterator[Page]:
        """Push with the token of the visitor who signed in."""
        yield from self.on_push(depth, repository, private, token.token if token else None, request)

    def on_stop(self, request: gr.Request) -> None:
        """Let the search end after this step."""
        self._sessions.of(request.session_hash).stop()

    def on_cancel(self, request: gr.Request) -> None:
        """End the work without a result."""
        self._sessions.of(request.session_hash).cancel()

    def on_leave(self, request: gr.Request) -> None:
        """Forget the visitor, and end the work."""
        self._sessions.close(request.session_hash)
