"""The files beside the weights of a saved model: recipe, report, plot and card."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from ..card.base_card import BaseCardFields, read_base_card, read_own_card
from ..card.card import has_plot, render_card
from ..card.loss_plot import draw_losses
from ..config import SLEBConfig
from ..errors import PushError
from ..models.provenance import provenance_from_file
from ..report.folder import CARD_FILE_NAME, PLOT_FILE_NAME, REPORT_FILE_NAME, recover
from ..report.report import PruningReport
from ..runtime.files import file_sha256


def write_sleb_files(
    folder: Path,
    report: PruningReport,
    recipe: SLEBConfig | None,
    load_from: str,
    given: BaseCardFields | None = None,
    parent: str | None = None,
) -> PruningReport:
    """Write recipe, report, plot and card into a folder that already holds the weights.

    Return the report with size and fingerprint of the weight files; `recipe` is `None` without a search. What is not
    `given` for the card comes from the card of the pruned model that this one was made of, then from the dense one's.
    """
    fingerprint = _fingerprint(_weight_files(folder))
    report = replace(report, size_on_disk=size_on_disk(folder), weights_sha256=fingerprint)
    if recipe is not None:
        recipe.save_pretrained(folder)
    if has_plot(report):
        draw_losses(report, folder / PLOT_FILE_NAME)
    fields = (given or BaseCardFields()).or_else(read_own_card(parent) if parent else BaseCardFields())
    write_report_and_card(folder, report, load_from, fields.or_else(read_base_card(report.base_model)))
    return report


def write_report_and_card(folder: Path, report: PruningReport, load_from: str, fields: BaseCardFields) -> None:
    """Write the two files that tell of measurements."""
    report.save(folder)
    render_card(report, load_from, fields).save(folder / CARD_FILE_NAME)


def check_model_folder(folder: Path) -> PruningReport:
    """Return the report of a complete folder; raise PushError if a file is missing or the weights were changed."""
    recover(folder)
    _check_files(folder, ("config.json", REPORT_FILE_NAME, CARD_FILE_NAME))
    report = PruningReport.load(folder)
    _check_files(folder, (PLOT_FILE_NAME,) if has_plot(report) else ())
    provenance = provenance_from_file(folder / "config.json")
    if provenance is None or provenance.removed_blocks != report.removed_blocks:
        found = "no removed blocks" if provenance is None else f"removed blocks {list(provenance.removed_blocks)}"
        raise PushError(
            f"The report in {folder} says {list(report.removed_blocks)} were removed, but its config.json tells of "
            f"{found}; save the pruned model again."
        )
    if report.weights_sha256 != _fingerprint(_weight_files(folder)):
        raise PushError(
            f"The weights in {folder} are not those that its report tells of: files are missing, or were changed "
            "after it was saved. Save the pruned model again; push a fine-tuned one with its own push_to_hub()."
        )
    return report


def size_on_disk(folder: Path) -> int | None:
    """Return the bytes of the weight files in a folder; `None` where there are none, such as for a Hub name."""
    return sum(file.stat().st_size for file in _weight_files(folder)) or None


def _check_files(folder: Path, names: tuple[str, ...]) -> None:
    missing = [name for name in names if not os.path.isfile(folder / name)]
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
        digest.update(file_sha256(file))
    return digest.hexdigest()
