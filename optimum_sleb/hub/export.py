"""The blocks that went, as others' tools take them: mergekit, and llama.cpp's llama-quantize."""

import yaml

from ..errors import ReportError
from ..report.report import PruningReport


def mergekit_yaml(report: PruningReport, base_model: str | None = None) -> str:
    """Return a passthrough merge of mergekit: of the dense model, the ranges of blocks that are left."""
    name = base_model or report.base_model
    gguf_file = report.loading.get("gguf_file")
    if name is None or (base_model is None and gguf_file):
        why = f"the dense model was read from {gguf_file!r}" if gguf_file else "the report names no dense model"
        raise ReportError(
            f"mergekit reads safetensors, but {why}; name the folder or repository that holds it so (--base-model)."
        )
    if base_model is None and "@" in name:
        raise ReportError(
            f"mergekit takes what follows an @ for a revision, so it cannot read {name[:200]!r}; name the dense model "
            "by a path without one (--base-model)."
        )
    revision = report.loading.get("revision") if base_model is None else None
    model = f"{name}@{revision}" if revision else name
    slices = [{"sources": [{"model": model, "layer_range": [*kept]}]} for kept in _ranges(report.blocks_after)]
    return _comment(report) + yaml.safe_dump(
        {"slices": slices, "merge_method": "passthrough"}, sort_keys=False, default_flow_style=None, width=10_000
    )


def prune_layers(report: PruningReport) -> str:
    """Return the removed blocks as `llama-quantize --prune-layers` takes them: dense numbers from 0, by commas."""
    return ",".join(map(str, sorted(report.removed_blocks))) + "\n"


def is_plain_cut(report: PruningReport) -> bool:
    """Return whether the dense weights of the blocks that are left are the model's weights."""
    return not any(run.compensation or run.healing for run in report.runs)


def _ranges(blocks: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the runs of neighbours, each from its first to one past its last.

    >>> _ranges((0, 1, 4, 6, 7))
    [(0, 2), (4, 5), (6, 8)]
    """
    found: list[tuple[int, int]] = []
    for block in blocks:
        joins = found and found[-1][1] == block
        first = found.pop()[0] if joins else block
        found.append((first, block + 1))
    return found


def _comment(report: PruningReport) -> str:
    num_blocks, num_removed = report.original_num_blocks, len(report.removed_blocks)
    changed = "" if is_plain_cut(report) else " (that model was compensated or healed; this is the plain cut)"
    return f"# {num_removed} of {num_blocks} blocks left out, as optimum-sleb removed them{changed}\n"
