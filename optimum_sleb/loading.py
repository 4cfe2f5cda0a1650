"""Loading a model to prune, and what stands beside it."""

import warnings
from pathlib import Path
from typing import Any

import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)
from transformers.utils import IMAGE_PROCESSOR_NAME
from transformers.utils.hub import cached_file

from .auto import auto_class_for
from .errors import ModelNotFoundError, UnsupportedModelError
from .report import REPORT_FILE_NAME, PruningReport

# Arguments of `from_pretrained` that say where files come from; config, tokenizer and report take them as well.
_PLACE_ARGUMENTS = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "revision",
    "subfolder",
    "token",
    "trust_remote_code",
)


_OTHER_TASKS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")


def load_model(name_or_path: str, **kwargs: Any) -> PreTrainedModel:
    """Load a causal language model whose every weight is in the checkpoint.

    A checkpoint with a vision tower is loaded whole, with the auto class that it was saved for. Code that a repository
    brings along runs only if `trust_remote_code=True` was passed; nobody is asked.

    Args:
        name_or_path: A model on the Hub or a local folder.
        **kwargs: Passed on to `AutoModelForCausalLM.from_pretrained`. A GGUF file (`gguf_file=`) is dequantised, for
            packed blocks cannot be saved, unless `quantization_config` says otherwise.

    Returns:
        The model.

    Raises:
        ModelNotFoundError: If there is no model there.
        UnsupportedModelError: If it is not a causal language model.

    Example:
        ```python
        model = load_model("HuggingFaceTB/SmolLM2-135M", dtype="auto", device_map="cuda")
        ```
    """
    kwargs = {"trust_remote_code": False} | kwargs
    place = {name: value for name, value in kwargs.items() if name in _PLACE_ARGUMENTS}
    auto_class: Any = AutoModelForCausalLM
    if "gguf_file" not in kwargs:
        auto_class = _auto_class_for(name_or_path, _load_config(name_or_path, place))
    elif "quantization_config" not in kwargs and hasattr(transformers, "GgufConfig"):
        # Before transformers 5.23 there is no GgufConfig, and GGUF files are always dequantised.
        kwargs["quantization_config"] = transformers.GgufConfig(dequantize=True)
    try:
        model, loading = auto_class.from_pretrained(name_or_path, output_loading_info=True, **kwargs)
    except OSError as error:
        raise ModelNotFoundError(_not_found(name_or_path, error)) from error
    missing = sorted(loading["missing_keys"])
    if missing:
        raise UnsupportedModelError(
            f"The checkpoint {name_or_path!r} lacks {len(missing)} weights of {type(model).__name__} (the first is "
            f"{missing[0]}), so it is not the checkpoint of a causal language model; choose one that is."
        )
    return model


def load_tokenizer(name_or_path: str, **kwargs: Any) -> PreTrainedTokenizerBase | None:
    """Load the tokenizer that stands beside a model.

    Args:
        name_or_path: A model on the Hub or a local folder.
        **kwargs: The model's loading arguments; those that concern a tokenizer are used.

    Returns:
        The tokenizer, or `None` with a warning where there is none: a model can be calibrated on token ids.

    Example:
        ```python
        tokenizer = load_tokenizer("HuggingFaceTB/SmolLM2-135M")
        ```
    """
    place = {name: value for name, value in kwargs.items() if name in (*_PLACE_ARGUMENTS, "gguf_file")}
    try:
        return AutoTokenizer.from_pretrained(name_or_path, **place)
    except (OSError, ValueError, ImportError, KeyError) as error:
        warnings.warn(
            f"No tokenizer could be loaded from {name_or_path!r} ({_first_line(error)}); calibrate on token ids, or "
            "pass tokenizer=.",
            stacklevel=3,
        )
        return None


def load_processing_class(name_or_path: str, **kwargs: Any) -> PreTrainedTokenizerBase | ProcessorMixin | None:
    """Load what makes a model's inputs: its tokenizer, or its processor where it takes images as well.

    Args:
        name_or_path: A model on the Hub or a local folder.
        **kwargs: The model's loading arguments; those that say where files come from are used.

    Returns:
        The processor or tokenizer, or `None` with a warning where there is neither.

    Example:
        ```python
        processor = load_processing_class("google/gemma-3-4b-it")
        ```
    """
    if "gguf_file" not in kwargs and _find_file(name_or_path, IMAGE_PROCESSOR_NAME, **kwargs) is not None:
        place = {name: value for name, value in kwargs.items() if name in _PLACE_ARGUMENTS}
        try:
            return AutoProcessor.from_pretrained(name_or_path, **place)
        except (OSError, ValueError, ImportError, KeyError) as error:
            warnings.warn(
                f"The processor of {name_or_path!r} cannot be loaded ({_first_line(error)}), so it will not be saved "
                "with the pruned model; install what it needs, or copy its files.",
                stacklevel=3,
            )
    return load_tokenizer(name_or_path, **kwargs)


def load_report(name_or_path: str, **kwargs: Any) -> PruningReport | None:
    """Load the report of an earlier run that stands beside a model.

    Args:
        name_or_path: A model on the Hub or a local folder.
        **kwargs: The model's loading arguments; those that say where files come from are used.

    Returns:
        The report, or `None` if the model comes without one.

    Raises:
        ReportError: If it is malformed.

    Example:
        ```python
        report = load_report("smollm2-sleb-20")
        ```
    """
    path = _find_file(name_or_path, REPORT_FILE_NAME, **kwargs)
    return None if path is None else PruningReport.load(path)


def _load_config(name_or_path: str, place: dict[str, Any]) -> PreTrainedConfig:
    folder = Path(name_or_path, place.get("subfolder", ""))
    if Path(name_or_path).is_dir() and not (folder / "config.json").is_file():
        raise ModelNotFoundError(f"The folder {str(folder)!r} holds no model: it has no config.json.")
    try:
        return AutoConfig.from_pretrained(name_or_path, **place)
    except OSError as error:
        raise ModelNotFoundError(_not_found(name_or_path, error)) from error
    except ValueError as error:
        raise UnsupportedModelError(
            f"transformers {transformers.__version__} does not know the model at {name_or_path!r} "
            f"({_first_line(error)}); if it brings its own code, pass trust_remote_code=True."
        ) from error


def _find_file(name_or_path: str, file_name: str, **kwargs: Any) -> str | None:
    """The path of a file that may stand beside a model; fetched where the model is on the Hub."""
    place = {name: value for name, value in kwargs.items() if name in _PLACE_ARGUMENTS and name != "trust_remote_code"}
    return cached_file(
        name_or_path,
        file_name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **place,
    )


def _auto_class_for(name_or_path: str, config: PreTrainedConfig) -> Any:
    other_task = [name for name in config.architectures or () if name.endswith(_OTHER_TASKS)]
    if other_task:
        raise UnsupportedModelError(
            f"{name_or_path!r} is the checkpoint of a {other_task[0]}, which does not predict tokens; prune the "
            "causal language model, then train the head."
        )
    auto_class = None if config.is_encoder_decoder else auto_class_for(config)
    if auto_class is None:
        raise UnsupportedModelError(
            f"{name_or_path!r} is a {config.model_type} model, which transformers does not offer as a decoder-only "
            "language model; only models of AutoModelForCausalLM and AutoModelForImageTextToText can be pruned."
        )
    return auto_class


def _not_found(name_or_path: str, error: OSError) -> str:
    if Path(name_or_path).is_dir():
        return f"The folder {name_or_path!r} holds no model that can be loaded ({_first_line(error)})."
    return (
        f"There is no model at {name_or_path!r}: it is not a local folder, and the Hub does not give it "
        f"({_first_line(error)}); check the name, or download the model and pass its folder."
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
