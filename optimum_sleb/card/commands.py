"""The commands that a card shows to repeat a run."""

import re
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..blocks.criterion import KL
from ..calibration.formats import suffix_of
from ..calibration.mixture import split_mixture
from ..calibration.places import is_hub_name, is_pattern
from ..calibration.texts import NAMED_DATASETS
from ..config import AMOUNTS, BELONGS_TO, SLEBConfig, num_asked_for
from ..report.report import PruningReport
from .base_card import hub_name
from .format import one_line, public_dataset_name


def repeat_commands(report: PruningReport, output: str) -> list[str]:
    """Return the commands that make the model again, one for each run; the last one writes the folder `output`.

    Empty where no command can repeat a run: data or a criterion in memory, a model quantised at loading, healing
    between runs.
    """
    runs = report.runs
    if report.healed_between_runs or not all(_is_repeatable(run) for run in runs):
        return []
    folders = [f"{output}-after-run-{number}" for number in range(1, len(runs))] + [output]
    first_model = _model_name(runs[0].base_model)
    return [
        _command(run, model, folder)
        for run, model, folder in zip(runs, [first_model, *folders], folders, strict=False)
    ]


def _is_repeatable(run: PruningReport) -> bool:
    if "quantization_config" in run.loading:
        return False
    criterion = run.recipe and run.recipe.criterion
    if criterion and criterion != KL and not re.fullmatch(r"(?!__main__)[\w.]+:[\w.]+", criterion):
        return False  # no other process can import the function
    texts = (value for value in vars(run.recipe).values() if isinstance(value, str)) if run.recipe else ()
    if not all(map(str.isprintable, texts)):
        return False  # a line break would split the command
    parts = split_mixture(run.recipe.dataset) if run.recipe else []
    return all(_is_name_of_data(part) for part in parts)


def _is_name_of_data(name: str) -> bool:
    """Tell if a command can name the data; what lay in memory has another kind of name."""
    is_file = suffix_of(name) or name.endswith("/") or is_pattern(name)
    return name in NAMED_DATASETS or bool(is_file) or is_hub_name(name)


def _model_name(base_model: str | None) -> str:
    return hub_name(base_model) or (Path(base_model).name if base_model else "") or "MODEL"


def _command(run: PruningReport, model: str, output: str) -> str:
    words = ["optimum-cli", "sleb", "prune" if run.recipe else "remove", "--model", one_line(model)]
    for name, value in run.loading.items():
        words += [_option(name)] if value == "True" else [_option(name), one_line(value)]
    if run.recipe is None:
        words += ["--blocks", *(str(step.block) for step in run.steps)]
    else:
        words += _amount(run.recipe, run) + _recipe_options(run.recipe, run)
    return shlex.join([*words, "--output", one_line(output)])


def _amount(recipe: SLEBConfig, run: PruningReport) -> list[str]:
    """Return the option for the number of blocks; a cut of a deeper search equals a search of that smaller depth."""
    if recipe.sparsity is not None and num_asked_for(recipe, len(run.blocks_before)) == len(run.steps):
        return ["--sparsity", str(recipe.sparsity)]
    if run.target is not None:
        asked = {name: getattr(recipe, name) for name in (run.target.name, *BELONGS_TO)}
        return [word for name, value in asked.items() if value is not None for word in (_option(name), str(value))]
    return ["--num-blocks", str(len(run.steps))]


def _recipe_options(recipe: SLEBConfig, run: PruningReport) -> list[str]:
    words = ["--dataset", public_dataset_name(recipe.dataset)]
    if not recipe.bos_per_window:
        words.append("--published-bos")
    for field in fields(SLEBConfig):
        value: Any = getattr(recipe, field.name)
        if field.name == "max_windows" and value is None and run.calibration is not None:
            value = run.calibration.num_windows * len(split_mixture(recipe.dataset))  # keeps every window of each part
        if field.name not in (*AMOUNTS, *BELONGS_TO, "dataset", "bos_per_window") and value != field.default:
            text = str(value)  # one that begins with a dash would be taken for an option
            words += [f"{_option(field.name)}={text}"] if text.startswith("-") else [_option(field.name), text]
    return words


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
