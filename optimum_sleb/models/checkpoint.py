"""Checks of the files of a checkpoint before anything in them is loaded."""

import os
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.utils import (
    ADAPTER_CONFIG_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    is_peft_available,
)
from transformers.utils.hub import cached_file

from ..errors import ModelNotFoundError, UnsupportedModelError
from ..runtime.json import read_json


def find_file(name_or_path: str, file_name: str, source: dict[str, Any]) -> str | None:
    """Return the path of a file of a model, downloaded if the model is on the Hub, or `None` if there is no such file.
    `source` holds the arguments of `from_pretrained` that say where files come from.
    """
    return cached_file(
        name_or_path,
        file_name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **source,
    )


# The most tensors that a block may bring: a few hundred experts have several each, packed ones more of them.
MOST_TENSORS_OF_A_BLOCK = 8_192


def check_weight_files(
    name_or_path: str, source: dict[str, Any], num_blocks: int, variant: str | None = None, named: Any = None
) -> None:
    """Refuse weights that are not complete safetensors files in the checkpoint's own folder.
    Pickles are refused because they can run code when they are loaded. `named` is the config's `transformers_weights`,
    unchecked; `None` if the config has no such entry.
    """
    if named is not None:
        _check_named(name_or_path, source, named, num_blocks)
        return
    single = find_file(name_or_path, _of_variant(SAFE_WEIGHTS_NAME, variant), source)
    index = None if single else find_file(name_or_path, _of_variant(SAFE_WEIGHTS_INDEX_NAME, variant), source)
    if index is not None:
        _check_shards(Path(index), os.path.isdir(name_or_path), num_blocks)
    elif single is not None:
        _check_count(single, _check_header(single), num_blocks)
    for pickle in () if single or index else (WEIGHTS_NAME, WEIGHTS_INDEX_NAME):
        if find_file(name_or_path, _of_variant(pickle, variant), source):
            raise UnsupportedModelError(
                f"{name_or_path!r} has its weights only as pickles ({_of_variant(pickle, variant)}), which can run "
                "code when they are loaded; if you trust where they come from, convert them once: "
                f"AutoModelForCausalLM.from_pretrained({name_or_path!r}, use_safetensors=False)"
                ".save_pretrained('converted')."
            )


def check_no_adapter(name_or_path: str, source: dict[str, Any]) -> None:
    """Refuse a checkpoint with a PEFT adapter, which transformers would load with the model.
    It may read the adapter from a pickle, and the model from wherever the adapter's config says, unchecked.
    """
    # Without PEFT installed, transformers ignores adapters.
    if is_peft_available() and find_file(name_or_path, ADAPTER_CONFIG_NAME, source) is not None:
        raise UnsupportedModelError(
            f"{name_or_path!r} holds a PEFT adapter ({ADAPTER_CONFIG_NAME}), bound to block numbers; merge it "
            "into its model (merge_and_unload), save that, and use the result."
        )


def _check_named(name_or_path: str, source: dict[str, Any], named: Any, num_blocks: int) -> None:
    # transformers itself would accept one pickle here, adapter_model.bin.
    endings = (".safetensors", ".safetensors.index.json")
    if not isinstance(named, str) or not named.endswith(endings) or not _is_file_name(named):
        raise UnsupportedModelError(
            f"The config of {name_or_path!r} names the weights {named!r} (transformers_weights), which is no plain "
            f"name of a safetensors file (*{endings[0]} or *{endings[1]}); do not use this model, or delete the entry "
            "if its weights lie under their usual name."
        )
    file = find_file(name_or_path, named, source)
    if file is None:
        raise ModelNotFoundError(
            f"The config of {name_or_path!r} names the weights {named!r} (transformers_weights), which cannot be "
            "found; get the file again."
        )
    if named.endswith(endings[1]):
        _check_shards(Path(file), os.path.isdir(name_or_path), num_blocks)
    else:
        _check_count(file, _check_header(file), num_blocks)


def _is_file_name(name: str) -> bool:
    return PurePosixPath(name).name == PureWindowsPath(name).name == name


def _check_shards(index: Path, local: bool, num_blocks: int) -> None:
    try:
        weight_map = read_json(index)["weight_map"]
        shards = sorted(set(weight_map.values()))
        foreign = [shard for shard in shards if _leaves_the_folder(shard)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelNotFoundError(f"{index} is no index of weights ({error}); get the file again.") from error
    if foreign:
        raise UnsupportedModelError(
            f"{index} names the file {foreign[0]!r}, which lies outside of the model's folder; do not use this model."
        )
    num_tensors = 0
    # A checkpoint on the Hub is downloaded later, shard by shard.
    for shard in shards if local else ():
        if not os.path.isfile(index.parent / shard):
            raise ModelNotFoundError(f"{index} names the file {shard!r}, which is missing; get it again.")
        num_tensors += _check_header(str(index.parent / shard))
    _check_count(str(index), max(num_tensors, len(weight_map)), num_blocks)


def _leaves_the_folder(shard: str) -> bool:
    # Checked by the rules of POSIX and of Windows: a path that is safe on one may leave the folder on the other.
    paths = PurePosixPath(shard), PureWindowsPath(shard)
    return any(path.anchor or ".." in path.parts for path in paths)


def _check_header(file: str) -> int:
    """Return the number of tensors of a file; opening it checks that it has the length that its header says."""
    try:
        with safe_open(file, framework="pt") as opened:
            return len(opened.keys())
    except (SafetensorError, OSError) as error:
        raise ModelNotFoundError(
            f"The weights in {file} are damaged or incomplete ({error}); get the file again."
        ) from error


def _check_count(file: str, num_tensors: int, num_blocks: int) -> None:
    # transformers takes about 0.1 ms for each tensor, also for those that the model does not use.
    if num_tensors > (most := MOST_TENSORS_OF_A_BLOCK * (num_blocks + 1)):
        raise UnsupportedModelError(
            f"{file} counts {num_tensors:,} tensors, more than the {most:,} that {num_blocks} blocks can have; get "
            "the file again, or do not use this model."
        )


def _of_variant(file_name: str, variant: str | None) -> str:
    stem, _, ending = file_name.rpartition(".")
    return file_name if variant is None else f"{stem}.{variant}.{ending}"
