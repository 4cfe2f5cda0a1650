"""Where a pruned model comes from: a few facts that travel in its config, also where a report would get lost."""

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from .config import MAX_BLOCKS
from .errors import ReportError
from .plain import parse_dataclass
from .report import PruningReport
from .strict_json import read_json
from .version import __version__
from .weights import differing_weight

TAGS = ["sleb", "pruned", "depth-pruning"]


@dataclass(frozen=True)
class Provenance:
    """What the config of a pruned model says about its origin, under the key `sleb`.

    Attributes:
        original_num_blocks: Number of decoder blocks of the dense model.
        removed_blocks: The blocks that are gone, by their number in the dense model, in order of removal.
        base_model: The dense model on the Hub; `None` where it is a local folder or unknown.
        version: Version of optimum_sleb that removed them.
    """

    original_num_blocks: int
    removed_blocks: tuple[int, ...] = ()
    base_model: str | None = None
    version: str = __version__

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks that are left, by their number in the dense model, ascending."""
        gone = set(self.removed_blocks)
        return tuple(block for block in range(self.original_num_blocks) if block not in gone)


def provenance_of(model: PreTrainedModel, num_blocks: int) -> Provenance:
    """Where a model comes from, as far as its config tells.

    Args:
        model: The model, dense or pruned before.
        num_blocks: Number of its decoder blocks.

    Returns:
        Its provenance; that of a dense model where the config says nothing.

    Raises:
        ReportError: If the config speaks of another number of blocks than the model has.

    Example:
        ```python
        provenance_of(model, 24).removed_blocks  # (5, 4, 26, 3, 25, 6)
        ```
    """
    entry = getattr(model.config, "sleb", None)
    if entry is None:
        name = model.name_or_path
        return Provenance(num_blocks, base_model=name if name and not Path(name).exists() else None)
    provenance = _parse(entry)
    if len(provenance.blocks) != num_blocks:
        raise ReportError(
            f"The entry 'sleb' of config.json leaves {len(provenance.blocks)} blocks, but the model has {num_blocks}; "
            "delete the entry to treat the model as a dense one."
        )
    return provenance


def provenance_in(file: Path) -> Provenance | None:
    """Where a saved model comes from, as far as its config tells.

    Args:
        file: The model's `config.json`.

    Returns:
        Its provenance, or `None` where the config says nothing.

    Raises:
        ReportError: If the file or its entry is malformed.

    Example:
        ```python
        provenance_in(Path("smollm2-sleb-20/config.json")).removed_blocks
        ```
    """
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
    odd = [block for number, block in enumerate(removed) if not 0 <= block < count or block in removed[:number]]
    if odd:
        raise ValueError(f"removed_blocks names block {odd[0]}, which is not one of {count}, or is named twice.")


def check_same_model(model: PreTrainedModel, blocks: tuple[int, ...], report: PruningReport) -> None:
    """Make sure that a report is about a model: about its weights too, where the report holds a sample of them.

    Its numbers are those of one model. Another of the same shape, and be it the same one fine-tuned, can lose the same
    blocks, but must not take over the numbers.

    Args:
        model: The model.
        blocks: Its blocks, by their number in the dense model.
        report: The report of a run that began with this model.

    Raises:
        ReportError: If it began with another one.

    Example:
        ```python
        check_same_model(model, tuple(range(30)), report.first_run)
        ```
    """
    architecture, parameters = type(model).__name__, model.num_parameters()
    if (architecture, parameters, blocks) != (report.architecture, report.parameters_before, report.blocks_before):
        raise ReportError(
            f"The report is of a {report.architecture} with {len(report.blocks_before)} blocks and "
            f"{report.parameters_before:,} parameters, but this is a {architecture} with {len(blocks)} blocks and "
            f"{parameters:,} parameters; load the model that the report began with."
        )
    differing = None if report.weights_before is None else differing_weight(model, report.weights_before)
    if differing is not None:
        raise ReportError(
            f"The report is of another {architecture}, which differs in {differing}; load the model that the report "
            "began with, or remove the same blocks without its losses (remove(report.removed_blocks), --blocks)."
        )


def check_report(report: PruningReport, provenance: Provenance, name: str) -> None:
    """Make sure that the report beside a model tells of the removals that its config tells of.

    Args:
        report: The report.
        provenance: What the config says.
        name: Where both were found.

    Raises:
        ReportError: If they differ.

    Example:
        ```python
        check_report(PruningReport.load(folder), provenance_of(model, 24), folder)
        ```
    """
    if report.removed_blocks != provenance.removed_blocks:
        raise ReportError(
            f"The report beside {name!r} says {list(report.removed_blocks)} were removed, the config says "
            f"{list(provenance.removed_blocks)}; delete the report if it is not this model's."
        )


def mark_as_pruned(model: PreTrainedModel, provenance: Provenance) -> None:
    """Let a model itself say that it was pruned, in place.

    Its config takes the provenance, its tags go into any card that a Trainer or `push_to_hub` writes, and its name no
    longer points to the dense model: adapters trained on it would record that as their base, and load onto it without
    an error.

    Args:
        model: The pruned model.
        provenance: Where it comes from.

    Example:
        ```python
        mark_as_pruned(model, Provenance(30, (5, 4)))
        ```
    """
    entry = asdict(provenance)
    model.config.sleb = {**entry, "removed_blocks": list(provenance.removed_blocks)}
    model.add_model_tags(TAGS)
    rename(model, "")


def rename(model: PreTrainedModel, name: str) -> None:
    """Tell a model where it can be loaded from.

    Args:
        model: The model.
        name: A folder or a repository; empty where it has not been saved.

    Example:
        ```python
        rename(model, "smollm2-sleb-20")
        ```
    """
    model.name_or_path = name
    model.config._name_or_path = name


def model_name(model: PreTrainedModel) -> str | None:
    """The dense model's name on the Hub, or the absolute path of its folder, which nobody mistakes for such a name.

    Args:
        model: The model.

    Returns:
        Its name or path; `None` for a model without a name.

    Example:
        ```python
        model_name(model)  # "HuggingFaceTB/SmolLM2-135M"
        ```
    """
    name = model.name_or_path
    return str(Path(name).absolute()) if name and Path(name).exists() else name or None


def loading_of(arguments: dict[str, Any]) -> dict[str, str]:
    """Which weights were loaded, so that a run can be repeated.

    Args:
        arguments: Keyword arguments of `from_pretrained`.

    Returns:
        Those that decide on the weights, as text.

    Example:
        >>> loading_of({"dtype": "bfloat16", "device_map": "cuda"})
        {'dtype': 'bfloat16'}
    """
    wanted = {name: arguments.get(name) for name in ("revision", "gguf_file", "dtype", "trust_remote_code")}
    # torch writes its types as `torch.bfloat16`; "auto" is what is done anyway.
    told = {name: str(value).removeprefix("torch.") for name, value in wanted.items() if value}
    if (quantization := arguments.get("quantization_config")) is not None:
        told["quantization_config"] = type(quantization).__name__
    return {name: value for name, value in told.items() if value != "auto"}


def versions() -> dict[str, str]:
    """Versions of what decides a result.

    Returns:
        Version by name.

    Example:
        >>> sorted(versions())
        ['optimum-sleb', 'python', 'torch', 'transformers']
    """
    libraries = {name: version(name) for name in ("torch", "transformers")}
    return {"optimum-sleb": __version__, "python": platform.python_version(), **libraries}
