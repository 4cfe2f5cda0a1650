"""The front matter of a card: the metadata that the Hub reads."""

from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from ..calibration.mixture import split_mixture
from ..calibration.places import is_hub_name
from ..calibration.texts import NAMED_DATASETS
from ..models.auto import takes_images
from ..models.provenance import TAGS
from ..report.records import EvaluationRecord
from ..report.report import PruningReport
from .base_card import BaseCardFields, hub_name
from .format import one_line, public_dataset_name


def front_matter(report: PruningReport, name: str, base_card: BaseCardFields) -> ModelCardData:
    """Return the metadata of a pruned model, with known and measured facts only."""
    base_model = base_card.base_model or hub_name(report.base_model)
    # What the search lowered on its calibration text is told in the card, but it is no evaluation.
    results = [_result(evaluation) for evaluation in report.evaluations]
    return ModelCardData(
        base_model=base_model,
        # The Hub knows adapter, merge, quantized and finetune; only the last one fits.
        base_model_relation="finetune" if base_model else None,
        library_name="transformers",
        pipeline_tag="image-text-to-text" if takes_images(report.architecture) else "text-generation",
        tags=TAGS,
        license=base_card.license,
        license_name=base_card.license_name,
        license_link=base_card.license_link,
        language=base_card.language,
        datasets=_calibration_datasets(report) or None,
        model_name=name if results else None,
        eval_results=results or None,
    )


def _calibration_datasets(report: PruningReport | None) -> list[str]:
    """Return the Hub names of the calibration data sets of all runs."""
    if report is None:
        return []
    names = _calibration_datasets(report.previous)
    for part in split_mixture(report.calibration.source) if report.calibration else ():
        name = NAMED_DATASETS[part].load_arguments[0] if part in NAMED_DATASETS else part
        if is_hub_name(name) and name not in names:
            names.append(name)
    return names


def _result(evaluation: EvaluationRecord) -> EvalResult:
    name = one_line(public_dataset_name(evaluation.dataset)) or "unnamed"
    fields: dict[str, Any] = {"dataset_type": name}
    if evaluation.dataset in NAMED_DATASETS:
        dataset = NAMED_DATASETS[evaluation.dataset]
        identifier, *config = dataset.load_arguments
        fields = {
            "dataset_type": identifier,
            "dataset_config": config[0] if config else None,
            "dataset_split": dataset.evaluation_split,
        }
    error = {} if evaluation.after_stderr is None else {"stderr": evaluation.after_stderr}
    return EvalResult(
        task_type="text-generation",
        dataset_name=name,
        metric_type=one_line(evaluation.metric),
        metric_value=evaluation.after,
        metric_args={"protocol": one_line(evaluation.protocol), **error},
        **fields,
    )
