"""Code that a model's folder or its config brings along: it runs only where the caller trusts it."""

from collections.abc import Iterator
from typing import Any

import transformers
from transformers import PreTrainedConfig

from ..errors import ConfigError, ModelNotFoundError, UnsupportedModelError
from ..runtime.json import read_json
from .checkpoint import find_file

_FILES = (
    "config.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)

# What `auto_map` may name beside the model itself, and the field with the name of its class.
_CLASS_FIELDS = {
    "AutoTokenizer": "tokenizer_class",
    "AutoProcessor": "processor_class",
    "AutoImageProcessor": "image_processor_type",
    "AutoVideoProcessor": "video_processor_type",
    "AutoFeatureExtractor": "feature_extractor_type",
}


def is_trusted(arguments: dict[str, Any]) -> bool:
    """Return `trust_remote_code`, which is never left open: transformers would ask on standard input."""
    trusted = arguments.get("trust_remote_code")
    if trusted is not None and not isinstance(trusted, bool):
        raise ConfigError(f"trust_remote_code must be True or False; got {trusted!r}.")
    return bool(trusted)


def check_foreign_code(name_or_path: str, source: dict[str, Any], trusted: bool) -> None:
    """Refuse a tokenizer or processor whose class comes as code of the folder, unless that is trusted.
    Also refuse files that are no JSON objects, which transformers would only find out while it loads them.
    """
    for file_name in _FILES:
        path = find_file(name_or_path, file_name, source)
        if path is None:
            continue
        try:
            values = read_json(path, finite=False)
            if not isinstance(values, dict):
                raise ValueError(f"it holds a {type(values).__name__}")
        except (OSError, ValueError) as error:
            kind = {"config.json": "config", "tokenizer_config.json": "tokenizer"}.get(file_name, "processor")
            raise ModelNotFoundError(
                f"The {kind} of {name_or_path!r} is damaged ({file_name} is no JSON object: {error}); get its files "
                "again, or pass tokenizer=."
            ) from error
        for entry in () if trusted else _code_of(values):
            raise UnsupportedModelError(
                f"{file_name} of {name_or_path!r} wants to run code of its own ({entry}); if you trust it, pass "
                "trust_remote_code=True (--trust-remote-code), otherwise delete its auto_map, or pass tokenizer=."
            )


def check_kernels(name_or_path: str, config: PreTrainedConfig, trusted: bool) -> None:
    """Refuse a config that names an attention or experts kernel of a repository on the Hub, which is code too."""
    for field in ("_attn_implementation", "_experts_implementation"):
        named = getattr(config, field, None)
        for kernel in named.values() if isinstance(named, dict) else (named,):
            if isinstance(kernel, str) and "/" in kernel and not trusted:
                raise UnsupportedModelError(
                    f"The config of {name_or_path!r} wants to run the kernel {kernel!r}, which is code from the Hub; "
                    "if you trust it, pass trust_remote_code=True (--trust-remote-code), otherwise delete the entry."
                )
    for part in vars(config).values():
        if isinstance(part, PreTrainedConfig):
            check_kernels(name_or_path, part, trusted)


def wants_code(error: Exception) -> bool:
    """Tell whether transformers refused to run the code of a repository."""
    return isinstance(error, ValueError) and "trust_remote_code" in str(error)


def _code_of(values: dict[str, Any]) -> Iterator[str]:
    """Yield the classes that a file or a part of it takes from code, as transformers has none of their name."""
    named = values.get("auto_map")
    classes = named if isinstance(named, dict) else {"AutoTokenizer": named} if named else {}
    for kind, field in _CLASS_FIELDS.items():
        declared = values.get(field)
        if classes.get(kind) and not (isinstance(declared, str) and hasattr(transformers, declared)):
            yield f"auto_map: {kind} {str(classes[kind])[:200]}"
    for part in values.values():
        if isinstance(part, dict) and part is not named:
            yield from _code_of(part)
