"""What each of several processes meets, one scenario after the other; see `test_ranks.py`.

torchrun --standalone --nproc-per-node 2 tests/ranks_driver.py FOLDER [die]
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))
from optimum_sleb import SearchCallback, SearchControl, SearchState, SLEBConfig, SLEBPruner
from optimum_sleb.calibration.windows import WindowBatch
from optimum_sleb.compensation import matrices
from optimum_sleb.runtime.ranks import Ranks
from optimum_sleb.search.exact import ExactLosses
from optimum_sleb.search.journal import Journal
from tests.families import random_ids, tiny_model


class StopOnFirst(SearchCallback):
    """Stops after the first step, and fails where another process than the first calls it."""

    def on_block_removed(self, config: SLEBConfig, state: SearchState, control: SearchControl) -> None:
        """Ask for the end."""
        assert os.environ.get("RANK", "0") == "0"
        control.should_stop = True


SCENARIOS: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {  # windows, recipe, arguments of prune
    "uneven": (5, {}, {}),
    "batches": (5, {"batch_size": 1}, {}),
    "more processes than windows": (1, {}, {}),
    "racing": (21, {"search": "racing"}, {}),
    "compensated": (6, {"compensate": "during"}, {}),
    "reference": (3, {"search": "reference"}, {}),
    "offloaded": (5, {}, {"device": "cpu", "offload": "cpu"}),
    "a criterion": (5, {"criterion": "tests.criteria:loudness", "search": "racing"}, {}),
    "stopped": (5, {}, {"callbacks": [StopOnFirst()]}),
    "sets": (5, {"search_space": "runs", "criterion": "kl"}, {}),
    "sets, racing and compensated": (9, {"beam_width": 2, "search": "racing", "compensate": "after"}, {}),
    "offloaded and compensated": (6, {"compensate": "during"}, {"device": "cpu", "offload": "cpu"}),
}


def prune(name: str, ranks: Ranks | None = None, folder: Path | None = None, resume: bool = False) -> SLEBPruner:
    """Prune the tiny model as a scenario says."""
    num_windows, recipe, arguments = SCENARIOS[name]
    pruner = SLEBPruner(tiny_model())
    config = SLEBConfig(num_blocks_to_remove=2, **recipe)
    where = {"progress_dir": folder, "resume": resume}
    pruner.prune(config, calibration=list(random_ids(num_windows, 20)), ranks=ranks, **where, **arguments)
    return pruner


def what_counts(pruner: SLEBPruner) -> dict[str, Any]:
    """Decisions, losses, and the model that came out."""
    report = pruner.report
    model = pruner.model
    with torch.no_grad():
        logits = model(random_ids(1, 16)).logits
    steps = [asdict(step) | {"seconds": None} for step in report.steps]
    sets = [
        (one.removed, *(loss for loss in (one.loss, one.held_back_loss) if loss is not None))
        for depth in report.depths
        for one in depth.sets
    ]
    perplexities = [one for one in (report.perplexity_before, report.perplexity_after) if one is not None]
    told = {"steps": steps, "sets": sets, "perplexities": perplexities}
    return {**json.loads(json.dumps(told)), "logits": logits.double().sum().item(), "blocks": pruner.blocks}


def failing(owner: Any, name: str, error: Exception, times: int = 1) -> Callable[[], None]:
    """Let a method fail in this process, at its third call and so many more; the result puts it back."""
    method = getattr(owner, name)
    calls = 0

    def fails(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if 3 <= calls < 3 + times:
            raise error
        return method(*args, **kwargs)

    setattr(owner, name, fails)
    return lambda: setattr(owner, name, method)


def failure_of(ranks: Ranks, number: int, owner: type, method: str, error: Exception, folder: Path) -> str:
    """What a process meets where one of them fails."""
    restore = failing(owner, method, error) if ranks.rank == number else lambda: None
    try:
        with ranks.fail_together():
            prune("batches", ranks, folder)
    except Exception as met:
        return f"{type(met).__name__}: {met}"
    finally:
        restore()
    return "nothing"


def die(batch: Any, *rest: Any) -> tuple[int, Tensor]:
    """End without a word."""
    os._exit(9)


def main() -> None:
    """Run all scenarios; each process writes what it met."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    ranks = Ranks.from_launcher(cpu=True)
    if "die" in sys.argv:
        if ranks.rank == 1:
            ExactLosses.measure_batch = die
        prune("uneven", ranks)
    met: dict[str, Any] = {name: what_counts(prune(name, ranks)) for name in SCENARIOS}
    restore = failing(ExactLosses, "measure_batch", torch.OutOfMemoryError("full")) if ranks.rank else lambda: None
    met["memory runs out in one"] = what_counts(prune("uneven", ranks))
    restore()
    full = torch.OutOfMemoryError("full")  # at the second set of cuts
    restore = failing(matrices, "choose_matrix", full) if ranks.is_first else lambda: None
    met["memory runs out while the first compensates"] = what_counts(prune("compensated", ranks))
    restore()
    failures = {
        "one cannot measure": (1, ExactLosses, "measure_batch", ValueError("a broken block")),
        "the first cannot measure": (0, ExactLosses, "measure_batch", ValueError("a broken block")),
        "the journal cannot be written": (0, Journal, "note", OSError("the disk is full")),
        "one cannot read its share": (1, WindowBatch, "share", RuntimeError("bad text")),
    }
    for number, (name, failure) in enumerate(failures.items()):
        met[name] = failure_of(ranks, *failure, folder / str(number))
    met["resumed"] = what_counts(prune("batches", ranks, folder / "0", resume=True))
    met["together again"] = what_counts(prune("uneven", ranks))
    (folder / f"{ranks.rank}.json").write_text(json.dumps(met))
    ranks.close()


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # as in optimum_sleb/__main__.py
