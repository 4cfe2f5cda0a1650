"""Loading a model to prune, and telling which models can be."""

import warnings
from pathlib import Path
from typing import Any

import transformers
from torch.nn.parallel import DataParallel, DistributedDataParallel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils.hub import cached_file

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


def load_model(name_or_path: str, **kwargs: Any) -> PreTrainedModel:
    """Load a causal language model whose every weight is in the checkpoint.

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
    place = {name: value for name, value in kwargs.items() if name in _PLACE_ARGUMENTS}
    if "gguf_file" not in kwargs:
        _check_config(name_or_path, _load_config(name_or_path, place))
    elif "quantization_config" not in kwargs and hasattr(transformers, "GgufConfig"):
        # Before transformers 5.23 there is no GgufConfig, and GGUF files are always dequantised.
        kwargs["quantization_config"] = transformers.GgufConfig(dequantize=True)
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(name_or_path, output_loading_info=True, **kwargs)
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
    place = {name: value for name, value in kwargs.items() if name in _PLACE_ARGUMENTS and name != "trust_remote_code"}
    path = cached_file(
        name_or_path,
        REPORT_FILE_NAME,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **place,
    )
    return None if path is None else PruningReport.load(path)


def check_model(model: object) -> None:
    """Make sure that an object is a model from which blocks can be taken and which can then be saved.

    Args:
        model: What the caller passed as a model.

    Raises:
        UnsupportedModelError: If it is a wrapper, quantised, spread over devices, or no decoder-only model.

    Example:
        ```python
        check_model(model)
        ```
    """
    name = type(model).__name__
    if type(model).__module__.partition(".")[0] == "peft" or getattr(model, "_hf_peft_config_loaded", False):
        raise UnsupportedModelError(
            f"{name} carries PEFT adapters, which are bound to block numbers; merge them first "
            "(model = model.merge_and_unload())."
        )
    if hasattr(model, "_orig_mod"):
        raise UnsupportedModelError(
            "The model is wrapped by torch.compile; pass the model inside (model._orig_mod) and compile the result."
        )
    if isinstance(model, DataParallel | DistributedDataParallel):
        raise UnsupportedModelError(f"The model is wrapped in {name}; pass the model inside (model.module).")
    if not isinstance(model, PreTrainedModel):
        raise UnsupportedModelError(f"{name} is not a transformers.PreTrainedModel; load one from a checkpoint.")
    if model.config.is_encoder_decoder:
        raise UnsupportedModelError(f"{name} is an encoder-decoder model; only decoder-only models are supported.")
    _check_weights(model)


def _check_weights(model: PreTrainedModel) -> None:
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None:
        method = str(getattr(quantizer.quantization_config, "quant_method", "unknown")).rpartition(".")[2].lower()
        remedy = (
            "load it with quantization_config=GgufConfig(dequantize=True)"
            if method == "gguf"
            else "load the unquantised checkpoint, prune it, and quantise the result"
        )
        raise UnsupportedModelError(f"The model is quantised ({method}), which cannot be saved shortened; {remedy}.")
    devices = {parameter.device for parameter in model.parameters()}
    if any(device.type == "meta" for device in devices) or len(devices) > 1:
        raise UnsupportedModelError(
            f"The model is spread over {', '.join(sorted(map(str, devices)))}; load it on one device "
            "(device_map='cuda', or no device_map for the CPU)."
        )


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


def _check_config(name_or_path: str, config: PreTrainedConfig) -> None:
    from_its_own_code = "AutoModelForCausalLM" in getattr(config, "auto_map", {})
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and not from_its_own_code:
        raise UnsupportedModelError(
            f"{name_or_path!r} is a {config.model_type} model, which transformers does not offer as a causal language "
            "model; only models of AutoModelForCausalLM can be pruned."
        )


def _not_found(name_or_path: str, error: OSError) -> str:
    if Path(name_or_path).is_dir():
        return f"The folder {name_or_path!r} holds no model that can be loaded ({_first_line(error)})."
    return (
        f"There is no model at {name_or_path!r}: it is not a local folder, and the Hub does not give it "
        f"({_first_line(error)}); check the name, or download the model and pass its folder."
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
