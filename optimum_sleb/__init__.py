"""Make causal language models shallower: SLEB (arXiv 2402.09025) for any model of transformers.

The public names are imported on first use, so that `optimum-cli --help`, which imports this package to register its
commands, does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

_PUBLIC_NAMES = {
    "CalibrationError": "errors",
    "ConfigError": "errors",
    "ModelNotFoundError": "errors",
    "NonFiniteLossError": "errors",
    "OutputFolderError": "errors",
    "PruningReport": "report",
    "ReportError": "errors",
    "SLEBConfig": "config",
    "SLEBError": "errors",
    "SLEBPruner": "pruner",
    "UnsupportedModelError": "errors",
    "VerificationError": "errors",
    "perplexity": "evaluation.perplexity",
}

__all__ = ["__version__", *_PUBLIC_NAMES]  # noqa: PLE0604 (the names come from the table above)

if TYPE_CHECKING:
    from .config import SLEBConfig
    from .errors import (
        CalibrationError,
        ConfigError,
        ModelNotFoundError,
        NonFiniteLossError,
        OutputFolderError,
        ReportError,
        SLEBError,
        UnsupportedModelError,
        VerificationError,
    )
    from .evaluation.perplexity import perplexity
    from .pruner import SLEBPruner
    from .report import PruningReport


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC_NAMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
