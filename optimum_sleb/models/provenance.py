"""Origin of a pruned model: facts stored in its config, so that they remain where the report gets lost."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from ..config import MAX_BLOCKS
from ..errors import ReportError
from ..report.report import PruningReport
from ..runtime.json import parse_dataclass, read_json
from ..version import __version__
from .fingerprint import first_differing_weight

TAGS = ["sleb", "pruned", "depth-pruning"]


@dataclass(frozen=True)
class Provenance:
    """Origin of a pruned model, stored in its config under the key `sleb`."""

    original_num_blocks: int  # of the dense model
    removed_blocks: tuple[int, ...] = ()  # numbers in the dense model, in order of removal
    base_model: str | None = None  # name on the Hub; None for a local folder or an unknown model
    version: str = __version__  # of optimum_sleb at the removal

    @property
    def blocks(self) -> tuple[int, ...]:
        """Return the remaining blocks, by their number in the dense model, ascending."""
        gone = set(self.removed_blocks)
        return tuple(block for block in range(self.original_num_blocks) if block not in gone)


def provenance_of(model: PreTrainedModel, num_blocks: int) -> Provenance:
    """Return the origin from a model's config; that of a dense model where the config has no entry.

    Raise ReportError if the entry does not leave `num_blocks` blocks.
    """
    entry = getattr(model.config, "sleb", None)
    if entry is None:
        name = model.name_or_path
        return Provenance(num_blocks, base_model=name if name and not os.path.exists(name) else None)
    provenance = _parse(entry)
    if len(provenance.blocks) != num_blocks:
        raise ReportError(
            f"The entry 'sleb' of config.json leaves {len(provenance.blocks)} blocks, but the model has {num_blocks}; "
            "delete the entry to treat the model as a dense one."
        )
    return provenance


def provenance_from_file(file: Path) -> Provenance | None:
    """Return the origin stored in a `config.json`; `None` where it has no entry."""
    try:
        entry = read_json(file, finite=False).get("sleb")
    except (ValueError, AttributeError) as error:
        raise ReportError(f"{file} is not a JSON object ({error}); save the model again.") from error
    return None if entry is None else _parse(entry)


def _parse(entry: Any) -> Provenance:
    try:
        provenance = parse_dataclass(Provenance, entry, "the entry 'sleb' of config.json")
        _check_blocks(provenance)
        return provenance
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{error} Mend it, or delete it to treat the model as a dense one.") from error


def _check_blocks(provenance: Provenance) -> None:
    count, removed = provenance.original_num_blocks, provenance.removed_blocks
    if not 1 <= count <= MAX_BLOCKS:
        raise ValueError(f"original_num_blocks must lie between 1 and {MAX_BLOCKS}; got {count}.")
    seen: set[int] = set()
    for block in removed:
        if not 0 <= block < count or block in seen:
            raise ValueError(f"removed_blocks names block {block}, which is not one of {count}, or is named twice.")
        seen.add(block)


def check_same_model(model: PreTrainedModel, blocks: tuple[int, ...], report: PruningReport) -> None:
    """Raise ReportError unless the run of a report began with this model, checked on a sample of its weights.

    The losses of a report hold for one model only, and not for a fine-tuned one of the same shape.
    """
    architecture = type(model).__name__
    check_same_shape(architecture, [model.num_parameters()], blocks, report)
    differing = None if report.weights_before is None else first_differing_weight(model, report.weights_before)
    if differing is not None:
        raise ReportError(
            f"The report is of another {architecture}, which differs in {differing}; load the model that the report "
            "began with, or remove the same blocks without its losses (remove(report.removed_blocks), --blocks)."
        )


def check_same_shape(
    architecture: str, parameters: Sequence[int], blocks: tuple[int, ...], report: PruningReport
) -> None:
    """Raise ReportError unless the run of a report began with a model of this shape and one of these sizes."""
    is_same = (architecture, blocks) == (report.architecture, report.blocks_before)
    if not is_same or report.parameters_before not in parameters:
        raise ReportError(
            f"The report is of a {report.architecture} with {len(report.blocks_before)} blocks and "
            f"{report.parameters_before:,} parameters, but this is a {architecture} with {len(blocks)} blocks and "
            f"{parameters[0]:,} parameters; load the model that the report began with."
        )


def check_report_matches_config(report: PruningReport, provenance: Provenance, name: str) -> None:
    """Raise ReportError if the report beside a model lists other removals than its config."""
    if report.removed_blocks != provenance.removed_blocks:
        raise ReportError(
            f"The report beside {name!r} says {list(report.removed_blocks)} were removed, the config says "
            f"{list(provenance.removed_blocks)}; delete the report if it is not this model's."
        )


def mark_as_pruned(model: PreTrainedModel, provenance: Provenance) -> None:
    """Write the origin into the model's config, add tags for its cards and clear its name, in place.

    With the dense model's name, adapters trained on it would record the dense model as base and load onto it.
    """
    entry = asdict(provenance)
    model.config.sleb = {**entry, "removed_blocks": list(provenance.removed_blocks)}
    model.add_model_tags(TAGS)
    set_model_name(model, "")


def set_model_name(model: PreTrainedModel, name: str) -> None:
    """Set the name that a model can be loaded from; empty where it has not been saved."""
    model.name_or_path = name
    model.config._name_or_path = name


def model_name(model: PreTrainedModel) -> str | None:
    """Return the model's name on the Hub, or the absolute path of its folder; `None` for a model without a name."""
    name = model.name_or_path
    return str(Path(name).absolute()) if name and os.path.exists(name) else name or None


def loading_arguments_of(arguments: dict[str, Any]) -> dict[str, str]:
    """Return the arguments of `from_pretrained` that decide which weights are loaded, as text.

    >>> loading_arguments_of({"dtype": "bfloat16", "device_map": "cuda"})
    {'dtype': 'bfloat16'}
    """
    given = {name: arguments.get(name) for name in ("revision", "gguf_file", "dtype", "trust_remote_code")}
    # torch writes its types as `torch.bfloat16`; "auto" is the default and is left out.
    texts = {name: str(value).removeprefix("torch.") for name, value in given.items() if value}
    if (quantization := arguments.get("quantization_config")) is not None:
        texts["quantization_config"] = type(quantization).__name__
    return {name: value for name, value in texts.items() if value != "auto"}
