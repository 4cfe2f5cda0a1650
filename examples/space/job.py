"""Work in a thread of its own, which tells how far it is and can be stopped."""

from collections.abc import Callable, Iterator
from queue import Empty, Queue
from threading import Event, Thread
from typing import Any

# How often the page hears that time goes by, in seconds.
BEAT = 0.5


class CancelledError(Exception):
    """The visitor does not want the result any more."""


class Job:
    """One piece of work. `tell` is for the work, all else for the page."""

    def __init__(self, work: Callable[["Job"], Any]) -> None:
        self.cancelled, self.stop_soon = Event(), Event()
        self.result: Any = None
        self.error: Exception | None = None
        self._told: Queue[Any] = Queue()
        self._thread = Thread(target=self._run, args=(work,), daemon=True)

    @property
    def is_running(self) -> bool:
        """Return whether the work goes on."""
        return self._thread.is_alive()

    def tell(self, news: Any = None) -> None:
        """Tell how far the work is; ends it where it was cancelled."""
        if self.cancelled.is_set():
            raise CancelledError
        if news is not None:
            self._told.put(news)

    def follow(self) -> Iterator[Any]:
        """Do the work, and yield what it tells, or `None` at each beat; raise its error at the end."""
        self._thread.start()
        try:
            while self.is_running or not self._told.empty():
                try:
                    yield self._told.get(timeout=BEAT)
                except Empty:
                    yield None
        finally:  # also where the visitor left
            if self.is_running:
                self.cancelled.set()
                self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self, work: Callable[["Job"], Any]) -> None:
        try:
            self.result = work(self)
            self.tell()
        except Exception as error:
            self.error = error
