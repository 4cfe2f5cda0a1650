"""Make causal language models shallower: SLEB (arXiv 2402.09025) for any model of transformers.

The public names are imported on first use, so that `optimum-cli --help`, which imports this package to register its
commands, does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

__all__ = [
    "CalibrationError",
    "ConfigError",
    "CriterionError",
    "EvaluationRecord",
    "HealingRecord",
    "ModelNotFoundError",
    "NonFiniteLossError",
    "OutputFolderError",
    "PruningReport",
    "PushError",
    "ReportError",
    "SLEBCallback",
    "SLEBConfig",
    "SLEBError",
    "SLEBPruner",
    "Scenario",
    "Score",
    "SearchCallback",
    "SearchControl",
    "SearchState",
    "SpeedRecord",
    "UnsupportedModelError",
    "VerificationError",
    "__version__",
    "benchmark",
    "evaluate",
    "heal",
    "healing_record",
    "perplexity",
    "save_healed",
    "set_verbosity",
]

_MODULES = {
    "EvaluationRecord": ".report.records",
    "HealingRecord": ".report.records",
    "PruningReport": ".report.report",
    "SLEBCallback": ".callback",
    "SLEBConfig": ".config",
    "SLEBPruner": ".pruner",
    "Scenario": ".evaluation.scenarios",
    "Score": ".evaluation.scores",
    "SearchCallback": ".search.callbacks",
    "SearchControl": ".search.callbacks",
    "SearchState": ".search.callbacks",
    "SpeedRecord": ".report.records",
    "benchmark": ".evaluation.benchmark",
    "evaluate": ".evaluation.evaluate",
    "heal": ".healing.heal",
    "healing_record": ".hub.healed",
    "perplexity": ".evaluation.perplexity",
    "save_healed": ".hub.healed",
    "set_verbosity": ".runtime.logs",
}

if TYPE_CHECKING:
    from .callback import SLEBCallback
    from .config import SLEBConfig
    from .errors import (
        CalibrationError,
        ConfigError,
        CriterionError,
        ModelNotFoundError,
        NonFiniteLossError,
        OutputFolderError,
        PushError,
        ReportError,
        SLEBError,
        UnsupportedModelError,
        VerificationError,
    )
    from .evaluation.benchmark import benchmark
    from .evaluation.evaluate import evaluate
    from .evaluation.perplexity import perplexity
    from .evaluation.scenarios import Scenario
    from .evaluation.scores import Score
    from .healing.heal import heal
    from .hub.healed import healing_record, save_healed
    from .pruner import SLEBPruner
    from .report.records import EvaluationRecord, HealingRecord, SpeedRecord
    from .report.report import PruningReport
    from .runtime.logs import set_verbosity
    from .search.callbacks import SearchCallback, SearchControl, SearchState


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES.get(name, ".errors"), __name__), name)


def __dir__() -> list[str]:
    return __all__
