"""What the page does with a model: check it, search, and make the model of any depth of that search."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from following import Follower, View
from job import Job
from limits import Limits, PageError
from source import Source

from optimum_sleb import PruningReport, SLEBConfig, SLEBPruner
from optimum_sleb.blocks.stack import find_decoder_stack

HERE = Path(__file__).parent
# Beside the page where it was collected for a Space, else in the repository.
EXAMPLE_TEXT = next(
    (path for path in (HERE / "data", HERE.parent / "data") if path.is_dir()), HERE
) / "wikitext2-valid-excerpt.txt"  # fmt: skip


@dataclass(frozen=True)
class Found:
    """A search that ended. The model itself is let go, and made again at the depth that the visitor takes."""

    source: Source
    text: Path
    report: PruningReport
    view: View
    sizes: tuple[tuple[int, int], ...]  # parameters and bytes of each depth, the dense model first
    note: str = ""


def recipe_of(preset: str, by: str, share: float, number: float, length: float, windows: float) -> SLEBConfig:
    """Return the recipe of the form."""
    asked = {"Number of blocks": number} if by == "number" else {}
    for name, value in {**asked, "Tokens of a window": length, "Windows": windows}.items():
        if value is None or value != int(value):
            raise PageError(f"{name} must be a whole number.")
    amount: dict[str, Any] = {"sparsity": share / 100} if by == "share" else {"num_blocks_to_remove": int(number)}
    make = SLEBConfig.best if preset == "best" else SLEBConfig
    return make(**amount, window_length=int(length), max_windows=int(windows))


def text_of(typed: str | None, uploaded: str | None, folder: Path, limits: Limits) -> Path:
    """Return the file with the calibration text: what was typed or uploaded, else the example."""
    typed = (typed or "").strip()
    if typed and uploaded:
        raise PageError("There are two calibration texts, typed and uploaded; clear one of them.")
    if not typed and not uploaded:
        return EXAMPLE_TEXT
    target = folder / (Path(uploaded).name if uploaded else "calibration.txt")
    limits.check_text(Path(uploaded).stat().st_size if uploaded else len(typed))
    target.write_bytes(Path(uploaded).read_bytes() if uploaded else typed.encode())
    return target


def check(job: Job, source: Source) -> Any:
    """Return which blocks can be removed."""
    job.tell(f"Loading {source.shown}")
    pruner = source.load()
    job.tell("Trying each block")
    return pruner.check()


def search(job: Job, source: Source, config: SLEBConfig, text: Path, limits: Limits) -> Found:
    """Search for the blocks that go, and return what is needed to make the model of each depth."""
    job.tell(f"Loading {source.shown}")
    pruner = source.load()
    blocks = find_decoder_stack(pruner.model).blocks
    per_block = {number: _size_of(block.parameters()) for number, block in zip(pruner.blocks, blocks, strict=True)}
    whole = _size_of(pruner.model.parameters())
    job.tell("Reading the text, and measuring the whole model")
    follower = Follower(job, pruner.blocks, limits.minutes * 60)
    device = "cuda" if torch.cuda.is_available() else None
    pruner.prune(config, calibration=str(text), callbacks=[follower], device=device)
    report, view = pruner.report, View.of_report(pruner.report)
    gone = [report.cut(_earlier(report) + depth).steps for depth in range(1, len(view.steps) + 1)]
    sizes = [
        tuple(total - sum(per_block[step.block][part] for step in steps) for part, total in enumerate(whole))
        for steps in [(), *gone]
    ]
    late = f"The {limits.minutes:g} minutes of this page were over; this is what the search had found."
    return Found(source, text, report, view, tuple(sizes), late if follower.ran_out_of_time else "")


def make(job: Job, found: Found, depth: int) -> SLEBPruner:
    """Return the model of one depth of a search. Where cuts are compensated, the maps are fitted again."""
    job.tell(f"Loading {found.source.shown}")
    pruner = found.source.load()
    job.tell(f"Taking out {depth} block{'s' if depth > 1 else ''}")
    pruner.apply(found.report, _earlier(found.report) + depth, calibration=str(found.text))
    return pruner


def blocks_of(found: Found, depth: int) -> set[int]:
    """Return the blocks that are gone at a depth, by their numbers in the dense model."""
    return set(found.report.cut(_earlier(found.report) + depth).removed_blocks)


def _earlier(report: PruningReport) -> int:
    """Return how many blocks were gone before this search: the model of the visitor may have been pruned before."""
    return len(report.removed_blocks) - len(report.steps)


def _size_of(parameters: Iterable[torch.nn.Parameter]) -> tuple[int, int]:
    counted = [(one.numel(), one.numel() * one.element_size()) for one in parameters]
    return sum(count for count, _ in counted), sum(size for _, size in counted)
