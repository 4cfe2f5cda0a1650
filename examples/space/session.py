"""What the page keeps of a visitor while the page is open, and what it forgets when it is closed."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from job import CancelledError, Job
from limits import PageError
from search import Found

from optimum_sleb import SLEBError

logger = logging.getLogger("sleb.space")

# Of so many visitors files are kept; the one who came first is forgotten for a new one.
_MOST = 16


class Session:
    """A visitor: the folder with the uploads, the work that runs, and the last search."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sleb-space-"))
        self.job: Job | None = None
        self.found: Found | None = None
        self.note = ""  # what the visitor asked of the work that runs

    def run(self, work: Callable[[Job], Any]) -> Iterator[Any]:
        """Do some work, and yield what it tells; at the end the result stands in `job.result`."""
        self.job = Job(work)
        self.note = ""
        yield from self.job.follow()

    def stop(self) -> None:
        """Let a search end after the step that is being made, and keep what it found."""
        if self.job is not None:
            self.job.stop_soon.set()
            self.note = "Stopping; the step that is being measured ends first"

    def cancel(self) -> None:
        """End the work without a result."""
        if self.job is not None:
            self.job.cancelled.set()
            self.note = "Cancelling; what is being measured ends first"

    def last(self) -> Found:
        """Return the last search."""
        if self.found is None:
            raise PageError("There is no search yet, or this page was open for long; search again.")
        return self.found

    def close(self) -> None:
        """End the work, and delete what the visitor uploaded."""
        if self.job is not None:
            self.job.cancelled.set()
        shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
    """The visitors, by the name that Gradio gives each open page."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}

    def of(self, name: str | None) -> Session:
        """Return a visitor's session; a new one where there is none."""
        key = name or "one"
        if key not in self._sessions:
            while len(self._sessions) >= _MOST:
                self.close(next(iter(self._sessions)))
            self._sessions[key] = Session()
        return self._sessions[key]

    @property
    def is_one_served(self) -> bool:
        """Return whether work of any visitor runs."""
        # A list, because others come and go meanwhile, in threads of their own.
        return any(session.job is not None and session.job.is_running for session in list(self._sessions.values()))

    def close(self, name: str | None) -> None:
        """Forget a visitor."""
        if (session := self._sessions.pop(name or "one", None)) is not None:
            session.close()


def sentence_of(error: Exception) -> str:
    """Return what to tell of an error: the package's own sentence, and of any other one that it is a bug."""
    if isinstance(error, CancelledError):
        return "Cancelled."
    if isinstance(error, SLEBError):
        return str(error)
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "The machine of this page has too little memory for this model; take a smaller one."
    logger.error("An error that nothing foresaw", exc_info=error)  # the message may quote what only the owner may see
    return f"An error that nothing foresaw ({type(error).__name__}); its details are in the log of the page."
