"""Where a pruned model comes from: a few facts that travel in its config, also where a report would get lost."""

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from transformers import PreTrainedModel

from .errors import ReportError
from .plain import parse_dataclass
from .report import PruningReport
from .version import __version__

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
    try:
        provenance = parse_dataclass(Provenance, entry, "the entry 'sleb' of config.json")
    except ValueError as error:
        raise ReportError(f"{error} Mend it, or delete it to treat the model as a dense one.") from error
    if len(provenance.blocks) != num_blocks:
        raise ReportError(
            f"The entry 'sleb' of config.json leaves {len(provenance.blocks)} blocks, but the model has {num_blocks}; "
            "delete the entry to treat the model as a dense one."
        )
    return provenance


def check_same_model(model: PreTrainedModel, blocks: tuple[int, ...], report: PruningReport) -> None:
    """Make sure that a report is about a model.

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
