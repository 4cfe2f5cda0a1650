"""Ready callbacks that write a search to TensorBoard, trackio or wandb: `report_to`, as the Trainer takes it."""

import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import integrations

from ..blocks.criterion import KL
from ..config import SLEBConfig
from ..errors import ConfigError
from ..runtime.json import shown
from ..runtime.logs import get_logger
from .callbacks import SearchCallback, SearchControl, SearchState

logger = get_logger(__name__)

# transformers' own callbacks are not used: they want a Trainer's arguments, and call every number "train/...".
_PROJECT = "optimum-sleb"


class _Writer(SearchCallback):
    """Writes the metric before the search and after each step."""

    def __init__(self, folder: str | Path | None) -> None:
        self._folder = Path(folder or ".")  # of the progress
        self.opened = ExitStack()  # closes what the writer opened, once

    def on_search_begin(self, config: SLEBConfig, state: SearchState, control: SearchControl) -> None:
        self._open({name: value for name, value in asdict(config).items() if value is not None})
        self._write({_key(config, state): state.value, "blocks": state.num_blocks}, 0)

    def on_block_removed(self, config: SLEBConfig, state: SearchState, control: SearchControl) -> None:
        blocks = state.num_blocks - len(state.removed_blocks)
        numbers = {_key(config, state): state.value, "blocks": blocks}
        if state.block is not None:  # a search over sets removes several at once
            numbers["removed_block"] = state.block
        self._write({**numbers, "step_seconds": state.step_seconds}, state.step)

    def on_compensated(self, config: SLEBConfig, state: SearchState, control: SearchControl) -> None:
        self._write({f"{_key(config, state)}_compensated": state.value}, state.step)

    def on_search_end(self, config: SLEBConfig, state: SearchState, control: SearchControl) -> None:
        self.opened.close()

    def _open(self, recipe: dict[str, Any]) -> None:
        raise NotImplementedError

    def _write(self, numbers: dict[str, Any], step: int) -> None:
        raise NotImplementedError


class _TensorBoard(_Writer):
    """Event files in TENSORBOARD_LOGGING_DIR, or in `runs/...` of the folder of the progress or of this process."""

    def _open(self, recipe: dict[str, Any]) -> None:
        # Imports PEFT and bitsandbytes where they are installed: two seconds.
        from transformers.integrations.integration_utils import default_logdir

        try:
            module = importlib.import_module("torch.utils.tensorboard")
        except ImportError:
            module = importlib.import_module("tensorboardX")
        folder = os.environ.get("TENSORBOARD_LOGGING_DIR") or self._folder / default_logdir()
        self._writer = module.SummaryWriter(log_dir=str(folder))
        self.opened.callback(self._writer.close)
        rows = [f"| {name} | {value} |" for name, value in recipe.items()]
        self._writer.add_text("sleb/recipe", "\n".join(["| field | value |", "|---|---|", *rows]))

    def _write(self, numbers: dict[str, Any], step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(f"sleb/{name}", value, step)
        self._writer.flush()  # a run that is killed keeps them


class _Trackio(_Writer):
    """A run of the project TRACKIO_PROJECT."""

    def _open(self, recipe: dict[str, Any]) -> None:
        self._module = importlib.import_module("trackio")
        self._module.init(project=os.environ.get("TRACKIO_PROJECT", _PROJECT), config=recipe)
        self.opened.callback(self._module.finish)

    def _write(self, numbers: dict[str, Any], step: int) -> None:
        self._module.log({"sleb/step": step, **{f"sleb/{name}": value for name, value in numbers.items()}})


class _Wandb(_Trackio):
    """A run of the project WANDB_PROJECT; one that is open already is written to, and stays open."""

    def _open(self, recipe: dict[str, Any]) -> None:
        self._module = importlib.import_module("wandb")
        if self._module.run is None:
            self._module.init(project=os.environ.get("WANDB_PROJECT", _PROJECT))
            self.opened.push(self._finish)
        self._module.config.update({"sleb": recipe}, allow_val_change=True)
        self._module.define_metric("sleb/*", step_metric="sleb/step")

    def _finish(self, kind: type[BaseException] | None, *_error: object) -> None:
        self._module.finish(**({"exit_code": 1} if kind else {}))  # marks it as failed


_WRITERS: dict[str, type[_Writer]] = {"tensorboard": _TensorBoard, "trackio": _Trackio, "wandb": _Wandb}


def services_of(report_to: str | Sequence[str] | None) -> list[str]:
    """Return the names of the services, each once. Raise ConfigError for one that is unknown or not installed."""
    names = list(report_to) if isinstance(report_to, list | tuple) else [report_to or "none"]
    if names == ["none"]:
        return []
    if names == ["all"]:
        return [name for name in _WRITERS if _is_installed(name)]
    for name in names:
        if name not in _WRITERS:
            remedy = f"choose from {', '.join(_WRITERS)}, or all or none alone"
            raise ConfigError(f"A search cannot report_to {shown(name)}; {remedy}.")
        if not _is_installed(name):
            raise ConfigError(f"report_to={name!r} needs a package that is not installed; pip install {name}.")
    return list(dict.fromkeys(map(str, names)))


@contextmanager
def reporting(services: Sequence[str], folder: str | Path | None) -> Iterator[list[SearchCallback]]:
    """Yield a callback for each service; TensorBoard's files go into `folder`, that of the progress.
    What they opened is closed after an error too, which no error of a service hides."""
    writers = {name: _WRITERS[name](folder) for name in services}
    try:
        yield list(writers.values())
    except BaseException as error:
        for name, writer in writers.items():
            try:
                writer.opened.__exit__(type(error), error, error.__traceback__)
            except Exception as another:
                logger.warning(f"The run of {name} could not be closed after an error ({another}); close it there.")
        raise


def _key(config: SLEBConfig, state: SearchState) -> str:
    """Return the name of the metric for a service, whose names are short."""
    return KL if config.criterion == KL else state.metric


def _is_installed(name: str) -> bool:
    return bool(getattr(integrations, f"is_{name}_available")())
