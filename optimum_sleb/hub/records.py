"""What tells of a model, beside its weights: recipe, report, picture and card."""

import hashlib
from dataclasses import replace
from pathlib import Path

from ..config import RECIPE_FILE_NAME, SLEBConfig
from ..errors import PushError
from ..provenance import provenance_in
from ..report import JOURNAL_FILE_NAME, REPORT_FILE_NAME, PruningReport
from .base_card import inherited_from
from .card import CARD_FILE_NAME, has_plot, render_card
from .plot import PLOT_FILE_NAME, draw_losses

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json")
# Like weights, these must not outlive the model that they tell of.
RECORDS = (RECIPE_FILE_NAME, REPORT_FILE_NAME, PLOT_FILE_NAME, CARD_FILE_NAME, JOURNAL_FILE_NAME)


def write_records(folder: Path, report: PruningReport, recipe: SLEBConfig | None, load_from: str) -> PruningReport:
    """Write what tells of a model into the folder that holds its weights.

    Args:
        folder: The folder; the weights must be there.
        report: The report of the run.
        recipe: The recipe, if there was a search.
        load_from: What a reader passes to `from_pretrained`.

    Returns:
        The report as it was written, with size and fingerprint of the files of weights.

    Example:
        ```python
        write_records(Path("smollm2-sleb-20"), pruner.report, config, "me/smollm2-sleb-20")
        ```
    """
    fingerprint = _fingerprint(_weight_files(folder))
    report = replace(report, size_on_disk=size_on_disk(folder), weights_sha256=fingerprint)
    if recipe is not None:
        recipe.save_pretrained(folder)
    report.save(folder)
    if has_plot(report):
        draw_losses(report, folder / PLOT_FILE_NAME)
    render_card(report, load_from, inherited_from(report.base_model)).save(folder / CARD_FILE_NAME)
    return report


def check_records(folder: Path) -> PruningReport:
    """Make sure that a folder is complete, was written by this package, and that its records are about its weights.

    Args:
        folder: The folder.

    Returns:
        Its report.

    Raises:
        PushError: If a file is missing, or the weights are not those that were saved.
        ReportError: If the report is malformed.

    Example:
        ```python
        report = check_records(Path("smollm2-sleb-20"))
        ```
    """
    _check_files(folder, ("config.json", REPORT_FILE_NAME, CARD_FILE_NAME))
    report = PruningReport.load(folder)
    _check_files(folder, (PLOT_FILE_NAME,) if has_plot(report) else ())
    provenance = provenance_in(folder / "config.json")
    if provenance is None or provenance.removed_blocks != report.removed_blocks:
        told = "no removed blocks" if provenance is None else f"removed blocks {list(provenance.removed_blocks)}"
        raise PushError(
            f"The report in {folder} says {list(report.removed_blocks)} were removed, but its config.json tells of "
            f"{told}; save the pruned model again."
        )
    if report.weights_sha256 != _fingerprint(_weight_files(folder)):
        raise PushError(
            f"The weights in {folder} are not those that its report tells of: files are missing, or were changed "
            "after it was saved. Save the pruned model again; push a fine-tuned one with its own push_to_hub()."
        )
    return report


def size_on_disk(folder: Path) -> int | None:
    """Bytes of the files of weights in a folder.

    Args:
        folder: The folder of a model.

    Returns:
        Their size; `None` where there are none, such as for a model on the Hub.

    Example:
        >>> size_on_disk(Path("nowhere")) is None
        True
    """
    return sum(file.stat().st_size for file in _weight_files(folder)) or None


def _check_files(folder: Path, names: tuple[str, ...]) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise PushError(
            f"{folder} holds no {missing[0]}, so it is not a complete folder of optimum_sleb; save the pruned model "
            "again (save_pretrained, --output)."
        )


def _weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _fingerprint(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()
