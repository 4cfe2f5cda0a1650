"""The model card, rendered from the report."""

import json
import re
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..models.auto import takes_images
from ..report.records import HealingRecord
from ..report.report import PruningReport
from .base_card import Inherited, hub_name
from .commands import commands_of
from .comparison import calibration_evaluation, comparison_rows, windows_of
from .cuts import cut_rows
from .format import dataset_name, one_line, plain
from .front_matter import front_matter
from .strip import strip_of

CARD_FILE_NAME = "README.md"
_PACKAGE = Path(__file__).parents[1]
_TEMPLATES = [folder / "model_card_template.md" for folder in (_PACKAGE, _PACKAGE.parent)]
# It stands at the top of the repository; a wheel carries it inside the package.
TEMPLATE = _TEMPLATES[0] if _TEMPLATES[0].is_file() else _TEMPLATES[1]


def render_card(report: PruningReport, load_from: str, inherited: Inherited | None = None) -> ModelCard:
    """Return the card of a pruned model, with measured facts only; readers pass `load_from` to `from_pretrained`."""
    inherited = inherited or Inherited()
    name = one_line(Path(load_from).name)
    calibration = report.calibration if report.search else None
    remote_code = "trust_remote_code" in report.loading
    # `ModelCard.from_template` would do the same, but writes nothing at all where a variable is missing.
    environment = Environment(loader=FileSystemLoader(TEMPLATE.parent), undefined=StrictUndefined)
    environment.filters["plain"] = plain
    content = environment.get_template(TEMPLATE.name).render(
        card_data=front_matter(report, name, inherited).to_yaml(),
        title=name,
        base_model=hub_name(report.base_model),
        architecture=report.architecture,
        num_removed=len(report.removed_blocks),
        num_blocks=report.original_num_blocks,
        rows=comparison_rows(report),
        strip=strip_of(report),
        removed_blocks=", ".join(map(str, report.removed_blocks)),
        has_plot=has_plot(report),
        load_arguments=_quoted(one_line(load_from)) + (", trust_remote_code=True" if remote_code else ""),
        remote_code=remote_code,
        quantised="quantization_config" in report.loading,
        takes_images=takes_images(report.architecture),
        searched=report.search is not None,
        calibration=f"{dataset_name(calibration.source)} ({windows_of(calibration)})" if calibration else "",
        cuts=cut_rows(report.compensation),
        compensation=report.compensation,
        measured_on_calibration=calibration_evaluation(report) is not None and not report.healing,
        evaluated=bool(report.evaluations),
        healing=[_healing_of(one) for one in report.healing],
        healed_between=report.healed_between_runs,
        commands=commands_of(report, name),
        versions=", ".join(f"{library} {version}" for library, version in report.versions.items()),
        licence=inherited.license,
    )
    return ModelCard(content)


def address_card(card: ModelCard, load_from: str) -> None:
    """Replace the name that a rendered card tells its readers to load, in place; text added by hand stays."""
    found = re.search(r'from_pretrained\(("(?:[^"\\]|\\.)*")', card.text)
    if found is None:
        return
    old, new = json.loads(found[1]), one_line(load_from)
    card.text = card.text.replace(found[1], _quoted(new))
    card.text = card.text.replace(f"# {plain(Path(old).name)}\n", f"# {plain(Path(new).name)}\n", 1)
    if isinstance(card.data, ModelCardData) and card.data.eval_results:
        card.data.model_name = Path(new).name


def has_plot(report: PruningReport) -> bool:
    """Return whether the last run was a search that removed a block; only a search measures losses to draw."""
    return bool(report.steps) and calibration_evaluation(report) is not None


def _healing_of(record: HealingRecord) -> str:
    tokens = "" if record.tokens is None else f"{record.tokens:,} tokens, "
    minutes = f"{record.seconds / 60:.1f} minutes"
    return f"{record.method} on {dataset_name(record.dataset)}: {record.steps:,} steps, {tokens}{minutes}"


def _quoted(name: str) -> str:
    """Return a JSON string literal, which is also one of Python."""
    return json.dumps(name, ensure_ascii=False)
