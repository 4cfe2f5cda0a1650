"""The model card, rendered from the report."""

import json
import re
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..blocks.criterion import KL
from ..models.auto import takes_images
from ..report.records import CalibrationRecord, HealingRecord
from ..report.report import PruningReport
from .base_card import BaseCardFields, hub_name
from .commands import repeat_commands
from .compensation_table import compensation_rows, metric_of_fits
from .format import escape_markdown, one_line, public_dataset_name
from .front_matter import front_matter
from .limits import protected_blocks, sentences_on_limits
from .runtimes import sentence_on_runtimes
from .set_search import depth_rows, pool_in_words
from .stack_diagram import stack_diagram
from .tables import calibration_evaluation, comparison_rows, describe_windows

_PACKAGE = Path(__file__).parents[1]
_TEMPLATES = [folder / "model_card_template.md" for folder in (_PACKAGE, _PACKAGE.parent)]
# It stands at the top of the repository; a wheel carries it inside the package.
TEMPLATE = _TEMPLATES[0] if _TEMPLATES[0].is_file() else _TEMPLATES[1]


def render_card(report: PruningReport, load_from: str, base_card: BaseCardFields | None = None) -> ModelCard:
    """Return the card of a pruned model, with measured facts only; readers pass `load_from` to `from_pretrained`."""
    base_card = base_card or BaseCardFields()
    name = one_line(Path(load_from).name)
    calibration = report.calibration if report.search else None
    remote_code = "trust_remote_code" in report.loading
    # `ModelCard.from_template` would do the same, but writes nothing at all where a variable is missing.
    environment = Environment(loader=FileSystemLoader(TEMPLATE.parent), undefined=StrictUndefined)
    environment.filters["escape_markdown"] = escape_markdown
    content = environment.get_template(TEMPLATE.name).render(
        card_data=front_matter(report, name, base_card).to_yaml(),
        title=name,
        base_model=base_card.base_model or hub_name(report.base_model),
        architecture=report.architecture,
        num_removed=len(report.removed_blocks),
        num_blocks=report.original_num_blocks,
        rows=comparison_rows(report),
        diagram=stack_diagram(report),
        limits=sentences_on_limits(report),
        protected=bool(protected_blocks(report)),
        removed_blocks=", ".join(map(str, report.removed_blocks)),
        has_plot=has_plot(report),
        load_arguments=_quoted(one_line(load_from)) + (", trust_remote_code=True" if remote_code else ""),
        remote_code=remote_code,
        runtimes=sentence_on_runtimes(report),
        quantised="quantization_config" in report.loading,
        takes_images=takes_images(report.architecture),
        searched=report.search is not None,
        calibration=_calibration_text(calibration) if calibration else "",
        criterion=report.criterion,
        divergence=report.metric if report.criterion == KL else "",
        plotted=_plotted(report),
        lowered=_lowered(report),
        depths=depth_rows(report),
        num_sets=f"{sum(depth.num_measured for depth in report.depths):,}",
        pool=pool_in_words(report.recipe),
        by_held_back=any(depth.decided_by_held_back for depth in report.depths),
        has_sets=any(run.depths for run in report.runs),
        has_steps=any(run.steps and not run.depths for run in report.runs),
        stopped_early=report.search is not None and report.search.stopped_early,
        cuts=compensation_rows(report.compensation, report.criterion),
        fits_metric=metric_of_fits(report.criterion),
        every_block=report.compensation is not None and not all(cut.gap for cut in report.compensation.cuts),
        compensation=report.compensation,
        measured_on_calibration=calibration_evaluation(report) is not None and not report.healing,
        evaluated=bool(report.evaluations),
        healing=[_healing_of(one) for one in report.healing],
        healed_between=report.healed_between_runs,
        commands=repeat_commands(report, name),
        versions=", ".join(f"{library} {version}" for library, version in report.versions.items()),
        licence_sentence=licence_sentence(base_card.license),
    )
    return ModelCard(content)


def address_card(card: ModelCard, load_from: str) -> None:
    """Replace the name that a rendered card tells its readers to load, in place; text added by hand stays."""
    found = re.search(r'from_pretrained\(("(?:[^"\\]|\\.)*")', card.text)
    if found is None:
        return
    old, new = json.loads(found[1]), one_line(load_from)
    card.text = card.text.replace(found[1], _quoted(new))
    card.text = card.text.replace(
        f"# {escape_markdown(Path(old).name)}\n", f"# {escape_markdown(Path(new).name)}\n", 1
    )
    if isinstance(card.data, ModelCardData) and card.data.eval_results:
        card.data.model_name = Path(new).name


def name_origin(card: ModelCard, fields: BaseCardFields) -> None:
    """Let a rendered card say what was given of the dense model, in place; text added by hand stays."""
    if fields.base_model:
        card.data["base_model"], card.data["base_model_relation"] = fields.base_model, "finetune"
        begin = f"This is [{escape_markdown(fields.base_model)}](https://huggingface.co/{fields.base_model}) with "
        card.text = re.sub(r"(?m)^This is .* with (?=\d+ of its \d+ decoder blocks)", lambda _: begin, card.text)
    if fields.license:
        card.data["license"] = fields.license
        card.data["license_name"] = card.data["license_link"] = None  # they are of another licence
        sentence = f"- {licence_sentence(fields.license)}"
        card.text = re.sub(r"(?m)^- The licence .*$", lambda _: sentence, card.text, count=1)
    if fields.language:
        card.data["language"] = fields.language


def licence_sentence(licence: str | None) -> str:
    """Return what the card says of the licence."""
    if not licence:
        return "The licence of the dense model applies."
    return f"The licence is that of the dense model: {escape_markdown(licence)}."


def has_plot(report: PruningReport) -> bool:
    """Return whether the last run was a search that removed a block; only a search measures losses to draw."""
    return bool(report.steps) and calibration_evaluation(report) is not None


def _plotted(report: PruningReport) -> str:
    """Return what the plot shows, at the start of a sentence."""
    own = report.criterion if report.criterion != KL else report.metric
    return own or "Perplexity"


def _lowered(report: PruningReport) -> str:
    """Return what the search lowered, in a sentence."""
    if report.criterion == KL:
        return f"the {report.metric}"
    return f"the criterion {report.criterion}" if report.criterion else "the loss"


def _calibration_text(record: CalibrationRecord) -> str:
    columns = "" if record.columns in (None, "text") else f"{record.columns}; "
    return f"{public_dataset_name(record.source)} ({columns}{describe_windows(record)})"


def _healing_of(record: HealingRecord) -> str:
    tokens = "" if record.tokens is None else f"{record.tokens:,} tokens, "
    minutes = f"{record.seconds / 60:.1f} minutes"
    return f"{record.method} on {public_dataset_name(record.dataset)}: {record.steps:,} steps, {tokens}{minutes}"


def _quoted(name: str) -> str:
    """Return a JSON string literal, which is also one of Python."""
    return json.dumps(name, ensure_ascii=False)
