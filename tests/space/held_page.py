"""Serves the page as `python app.py` does in its folder, but a long search waits after its second step until its
visitor stops it, cancels it or leaves: so a test that does this finds it running, however busy the machine is.
"""

import runpy
import sys
from typing import Any

LONG = 30  # blocks to remove, by which a search is told to be long
HELD_AFTER = 2  # steps


def main() -> None:
    sys.path.insert(0, ".")
    import search
    from following import Follower

    class Held(Follower):
        def __init__(self, job: Any, *more: Any) -> None:
            super().__init__(job, *more)
            self.job = job

        def on_candidates_measured(self, config: Any, state: Any, control: Any) -> None:
            if state.max_steps == LONG and len(state.removed_blocks) == HELD_AFTER:
                while not (self.job.stop_soon.wait(0.05) or self.job.cancelled.is_set()):
                    pass
            super().on_candidates_measured(config, state, control)

    search.Follower = Held
    runpy.run_path("app.py", run_name="__main__")


if __name__ == "__main__":
    main()
