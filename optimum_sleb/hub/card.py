"""The model card, rendered from the report."""

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from ..provenance import TAGS
from ..report import PruningReport

_TEMPLATE_NAME = "model_card_template.md"


def render_card(report: PruningReport, load_from: str) -> ModelCard:
    """Write the card of a pruned model. Only what was measured appears.

    Args:
        report: The report of the run.
        load_from: What a reader passes to `from_pretrained`: a repository, or the folder's name.

    Returns:
        The card.

    Example:
        ```python
        render_card(pruner.report, "me/smollm2-sleb-20").save("smollm2-sleb-20/README.md")
        ```
    """
    base = report.base_model
    # A path of this machine means nothing to a reader, and is nobody's business.
    on_hub = base is not None and not Path(base).exists()
    data = ModelCardData(
        base_model=base if on_hub else None,
        base_model_relation="finetune" if on_hub else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=TAGS,
    )
    parent = f"`{base}`" if on_hub else f"a dense {report.architecture}"
    removed = len(report.removed_blocks)
    return ModelCard.from_template(
        data,
        template_path=str(_template_path()),
        title=Path(load_from).name,
        intro=f"This is {parent} with {removed} of its {report.original_num_blocks} decoder blocks removed.",
        comparison=_comparison(report),
        removed_blocks=", ".join(map(str, report.removed_blocks)),
        load_from=load_from,
        recipe=report.recipe,
        calibration=_calibration(report),
        versions=", ".join(f"{name} {version}" for name, version in report.versions.items()),
        caution="The perplexities above are those of the calibration text, which the blocks were chosen on."
        if report.search
        else "Nothing was measured on this model when it was made.",
    )


def _comparison(report: PruningReport) -> list[dict[str, str]]:
    rows = [
        ("decoder blocks", str(len(report.blocks_before)), str(len(report.blocks_after))),
        ("parameters", f"{report.parameters_before:,}", f"{report.parameters_after:,}"),
    ]
    if report.perplexity_before is not None and report.perplexity_after is not None:
        before, after = f"{report.perplexity_before:.2f}", f"{report.perplexity_after:.2f}"
        rows.append(("perplexity on the calibration text", before, after))
    return [dict(zip(("name", "before", "after"), row, strict=True)) for row in rows]


def _calibration(report: PruningReport) -> str:
    if report.calibration is None:
        return ""
    record = report.calibration
    return f"{Path(record.source).name} ({record.num_windows} windows, {record.num_tokens:,} tokens)"


def _template_path() -> Path:
    """The template stands at the top of the repository; a wheel carries it inside the package."""
    package = Path(__file__).parents[1]
    packaged = package / _TEMPLATE_NAME
    return packaged if packaged.is_file() else package.parent / _TEMPLATE_NAME
