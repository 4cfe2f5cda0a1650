"""Loading of a model to prune, and of the tokenizer, processor and report beside it."""

import os
import re
import reprlib
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import torch
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

from ..blocks.shortening import num_blocks_of, text_config_of
from ..config import MAX_BLOCKS
from ..errors import ModelNotFoundError, SLEBError, UnsupportedModelError
from ..report.folder import REPORT_FILE_NAME, recover
from ..report.report import PruningReport
from ..runtime.hub import check_token
from ..runtime.memory import ran_out_of_memory
from .auto import auto_class_for
from .checkpoint import check_no_adapter, check_weight_files, find_file
from .trust import check_foreign_code, check_kernels, is_trusted, wants_code

# Arguments of `from_pretrained` that say where files come from; config, tokenizer and report take them as well.
_SOURCE_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")

_OTHER_TASKS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")


def load_model(name_or_path: str, **kwargs: Any) -> PreTrainedModel:
    """Load a causal language model, with its vision tower if it has one; refuse a checkpoint that lacks weights.
    Code of the repository runs only with `trust_remote_code=True`; pickles are read only with `use_safetensors=False`.
    A GGUF file is dequantised unless `quantization_config` is passed, because packed blocks cannot be saved.
    """
    _check_place(name_or_path)
    kwargs = dict(kwargs)
    trusted, source = is_trusted(kwargs), _source_arguments(kwargs)
    kwargs.pop("trust_remote_code", None)
    auto_class: Any = AutoModelForCausalLM
    if "gguf_file" not in kwargs:
        config = _load_config(name_or_path, source, trusted)
        with _clear_errors(name_or_path):
            auto_class = _auto_class_for(name_or_path, config)
            _check_numbers(name_or_path, config)
        if kwargs.get("use_safetensors") is not False:
            named = getattr(config, "transformers_weights", None)
            check_weight_files(name_or_path, source, num_blocks_of(config), kwargs.get("variant"), named)
            kwargs["use_safetensors"] = True
    elif "quantization_config" not in kwargs and hasattr(transformers, "GgufConfig"):
        # Before transformers 5.23 there is no GgufConfig, and GGUF files are always dequantised.
        kwargs["quantization_config"] = transformers.GgufConfig(dequantize=True)
    with _clear_errors(name_or_path):
        check_no_adapter(name_or_path, source)
        model, loading = auto_class.from_pretrained(
            name_or_path, output_loading_info=True, trust_remote_code=trusted, **kwargs
        )
    missing = sorted(loading["missing_keys"])
    if missing:
        raise UnsupportedModelError(
            f"The checkpoint {name_or_path!r} lacks {len(missing)} weights of {type(model).__name__} (the first is "
            f"{missing[0]}), so it is not the checkpoint of a causal language model; choose one that is."
        )
    _warn_of_uncounted_blocks(name_or_path, model, loading["unexpected_keys"])
    return model


def load_without_weights(name_or_path: str, **kwargs: Any) -> PreTrainedModel:
    """Return the model of `load_model` on the meta device, without weights, to compute how much memory it takes."""
    _check_place(name_or_path)
    trusted = is_trusted(kwargs)
    config = _load_config(name_or_path, _source_arguments(kwargs), trusted)
    given = kwargs.get("dtype", "auto")
    dtype = config.dtype if given == "auto" else getattr(torch, str(given).removeprefix("torch."))
    with _clear_errors(name_or_path), torch.device("meta"):
        auto_class = _auto_class_for(name_or_path, config)
        _check_numbers(name_or_path, config)
        return auto_class.from_config(config, dtype=dtype or torch.float32, trust_remote_code=trusted)


def load_tokenizer(name_or_path: str, **kwargs: Any) -> PreTrainedTokenizerBase | None:
    """Load the tokenizer of a model. If there is none, warn and return `None`: token ids need no tokenizer.
    Damaged files raise `ModelNotFoundError`.
    """
    source, trusted = _source_arguments(kwargs), is_trusted(kwargs)
    if "gguf_file" in kwargs:
        source["gguf_file"] = kwargs["gguf_file"]
    _check_files(name_or_path, source, trusted)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=trusted, **source)
    except Exception as error:
        # For a damaged tokenizer.json, tokenizers raises a bare Exception.
        if type(error) in (Exception, JSONDecodeError, UnicodeDecodeError, RecursionError, TypeError, AttributeError):
            raise _damaged_tokenizer(name_or_path, error) from error
        if wants_code(error):
            raise _untrusted(name_or_path, error) from error
        warnings.warn(
            f"No tokenizer could be loaded from {name_or_path!r} ({_first_line(error)}); calibrate on token ids, or "
            "pass tokenizer=.",
            stacklevel=3,
        )
        return None
    try:
        tokenizer("a")  # which shows settings of the wrong type, such as a length that is no number
    except Exception as error:
        raise _damaged_tokenizer(name_or_path, error) from error
    return tokenizer


def load_processing_class(name_or_path: str, **kwargs: Any) -> PreTrainedTokenizerBase | ProcessorMixin | None:
    """Load the processor of a model that takes images, else its tokenizer.
    If there is neither, warn and return `None`.
    """
    source, trusted = _source_arguments(kwargs), is_trusted(kwargs)
    if "gguf_file" not in kwargs and find_file(name_or_path, IMAGE_PROCESSOR_NAME, source) is not None:
        _check_files(name_or_path, source, trusted)
        try:
            return AutoProcessor.from_pretrained(name_or_path, trust_remote_code=trusted, **source)
        except Exception as error:
            if wants_code(error):
                raise _untrusted(name_or_path, error) from error
            warnings.warn(
                f"The processor of {name_or_path!r} cannot be loaded ({_first_line(error)}), so it will not be saved "
                "with the pruned model, but its files are copied; install what it needs to have them checked.",
                stacklevel=3,
            )
    return load_tokenizer(name_or_path, **kwargs)


def load_report(name_or_path: str, **kwargs: Any) -> PruningReport | None:
    """Load the report of an earlier run that lies beside a model; return `None` if there is none."""
    path = find_file(name_or_path, REPORT_FILE_NAME, _source_arguments(kwargs))
    return None if path is None else PruningReport.load(path)


def _check_place(name_or_path: str) -> None:
    """Refuse the path of a file; finish a save of the folder that was killed before the folder had its name."""
    if not os.path.exists(name_or_path):
        recover(name_or_path)
    if os.path.isfile(name_or_path):
        raise ModelNotFoundError(
            f"{name_or_path!r} is a file; name the folder of the model (and a GGUF file in it with gguf_file, "
            "--gguf-file)."
        )


def _load_config(name_or_path: str, source: dict[str, Any], trusted: bool) -> PreTrainedConfig:
    folder = Path(name_or_path, source.get("subfolder", ""))
    if os.path.isdir(name_or_path) and not os.path.isfile(folder / "config.json"):
        raise ModelNotFoundError(f"The folder {str(folder)!r} holds no model: it has no config.json.")
    with _clear_errors(name_or_path):
        try:
            config = AutoConfig.from_pretrained(name_or_path, trust_remote_code=trusted, **source)
        except ValueError as error:
            raise UnsupportedModelError(
                f"transformers {transformers.__version__} does not know the model at {name_or_path!r} "
                f"({_first_line(error)}); if it brings its own code, pass trust_remote_code=True."
            ) from error
        check_kernels(name_or_path, config, trusted)
        return config


def _warn_of_uncounted_blocks(name_or_path: str, model: PreTrainedModel, unexpected: Iterable[str]) -> None:
    """Warn of blocks beyond the number in the config: the model runs without them, but it is a different model."""
    known = set(model.state_dict())
    uncounted = [name for name in sorted(unexpected) if re.sub(r"\.\d+\.", ".0.", name, count=1) in known]
    if uncounted:
        warnings.warn(
            f"The checkpoint {name_or_path!r} holds blocks that its config does not count, and which are left out "
            f"(the first of their {len(uncounted)} weights is {uncounted[0]}); if that is not meant, mend the number "
            "of blocks in config.json.",
            stacklevel=3,
        )


def _check_numbers(name_or_path: str, config: PreTrainedConfig) -> None:
    count = num_blocks_of(config)
    if type(count) is not int or not 1 <= count <= MAX_BLOCKS:
        raise UnsupportedModelError(
            f"The config of {name_or_path!r} says that the model has {count} blocks, where 1 to {MAX_BLOCKS} are "
            "expected; get its config.json again."
        )
    text_config = text_config_of(config)
    sizes = {name: getattr(text_config, name, None) for name in ("num_attention_heads", "hidden_size", "vocab_size")}
    numbers = {**vars(config), **vars(text_config), **sizes}
    for name, value in numbers.items():
        if type(value) is int and (abs(value) >= 2**63 or (name in sizes and value < 0)):
            raise UnsupportedModelError(
                f"The config of {name_or_path!r} says that {name} is {reprlib.repr(value)}, which no model can have; "
                "get its config.json again."
            )


@contextmanager
def _clear_errors(name_or_path: str) -> Iterator[None]:
    """Turn any error of transformers about unusable files into a `ModelNotFoundError` of one sentence."""
    try:
        yield
    except SLEBError:
        raise
    except ImportError as error:
        raise UnsupportedModelError(
            f"{name_or_path!r} asks for a package that is not installed ({_first_line(error)}); install it, or change "
            "what needs it in config.json or the arguments (quantisation, attention)."
        ) from error
    except OSError as error:
        raise ModelNotFoundError(_not_found(name_or_path, error)) from error
    except Exception as error:
        if ran_out_of_memory(error):
            raise
        if wants_code(error):
            raise _untrusted(name_or_path, error) from error
        raise ModelNotFoundError(
            f"No model can be made of what is at {name_or_path!r} ({type(error).__name__}: {_first_line(error)}); if "
            "its files are damaged (config.json, say), get them again, otherwise check the loading arguments."
        ) from error


def _source_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    check_token(arguments.get("token"))
    return {name: value for name, value in arguments.items() if name in _SOURCE_ARGUMENTS}


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


def _check_files(name_or_path: str, source: dict[str, Any], trusted: bool) -> None:
    """Refuse the foreign code of a tokenizer or processor; a folder or repository that is not there has none."""
    places = {name: value for name, value in source.items() if name != "gguf_file"}
    try:
        check_foreign_code(name_or_path, places, trusted)
    except OSError as error:
        if isinstance(error, SLEBError):
            raise


def _damaged_tokenizer(name_or_path: str, error: Exception) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"The tokenizer of {name_or_path!r} is damaged ({_first_line(error)}); get its files again, or pass "
        "tokenizer=."
    )


def _untrusted(name_or_path: str, error: Exception) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{name_or_path!r} needs code of its own ({_first_line(error)}); if you trust it, pass trust_remote_code=True "
        "(--trust-remote-code)."
    )


def _not_found(name_or_path: str, error: OSError) -> str:
    if os.path.isdir(name_or_path):
        return f"The folder {name_or_path!r} holds no model that can be loaded ({_first_line(error)})."
    return (
        f"There is no model at {name_or_path!r}: it is not a local folder, and the Hub does not give it "
        f"({_first_line(error)}); check the name, or download the model and pass its folder."
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    # A line that ends in a colon is explained on the next line.
    return " ".join(lines[:2] if lines[0].endswith(":") else lines[:1]).rstrip(".")
