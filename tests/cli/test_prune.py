"""The options of `sleb prune` as a recipe: what was typed comes first, then the preset, then the defaults."""

from argparse import ArgumentParser
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from optimum_sleb import PruningReport, SLEBConfig
from optimum_sleb.cli.prune import PruneCommand, recipe_from
from optimum_sleb.config import AMOUNTS

from ..attacks.harness import assert_right, run_command

BASE = ["--model", "dense", "--output", "out", "--sparsity", "0.2"]
# Fields whose default can be typed: not those without one, and not switches.
WITH_WORDS = [field for field in fields(SLEBConfig) if not isinstance(field.default, bool | None)]


def parser() -> ArgumentParser:
    parser = ArgumentParser()
    PruneCommand.parse_args(parser)
    return parser


def recipe(*options: object) -> SLEBConfig:
    return recipe_from(parser().parse_args([*BASE, *map(str, options)]))


def test_nothing_typed_is_the_published_procedure() -> None:
    assert recipe() == recipe("--preset", "published") == SLEBConfig(sparsity=0.2)


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ([], {}),
        (["--search", "exact"], {"search": "exact"}),
        (["--compensate", "no"], {"compensate": "no"}),
        (["--dataset", "wikitext2"], {"dataset": "wikitext2"}),
        (["--criterion", "m:f", "--beam-width", 1], {"criterion": "m:f", "beam_width": 1}),
        (["--max-windows", 128, "--published-bos"], {"max_windows": 128, "bos_per_window": False}),
        (["--protected-blocks", "0-3", 14], {"protected_blocks": "0-3,14"}),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_what_is_typed_comes_before_the_preset(options: list[Any], changed: dict[str, Any], is_first: bool) -> None:
    preset = ["--preset", "best"]
    words = [*preset, *options] if is_first else [*options, *preset]
    assert recipe(*words) == SLEBConfig.best(**{"sparsity": 0.2, **changed})


@pytest.mark.parametrize("field", WITH_WORDS, ids=lambda field: field.name)
def test_every_field_can_be_typed_also_at_its_default(field: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset that changes the field is overruled by the default's own words."""
    other = {str: "other", int: 7, float: 7.5}[type(field.default)]
    monkeypatch.setitem(PruneCommand.parse_args.__globals__["PRESETS"], "best", {field.name: other})
    assert recipe("--preset", "best", f"--{field.name.replace('_', '-')}", field.default) == SLEBConfig(sparsity=0.2)


def test_every_field_has_an_option_and_the_help_its_default() -> None:
    actions = {action.dest: action for action in parser()._actions}
    text = " ".join(parser().format_help().split())
    for field in fields(SLEBConfig):
        action = actions[field.name]
        if field in WITH_WORDS:
            assert action.help.endswith(f"(default: {field.default})."), field.name
        assert field.name in AMOUNTS or action.option_strings[-1] in text
    for words in ("--compensate {no,after,during,every-block}", "--search-space {runs}", "--preset {published,best}"):
        assert words in text


@pytest.mark.long
def test_the_preset_from_folder_to_folder(model_folder: Path, text_file: Path, tmp_path: Path) -> None:
    data = ["--dataset", text_file, "--window-length", 20, "--max-windows", 6, "--num-blocks", 2, "--device", "cpu"]
    outcome = run_command(
        ["prune", "--model", model_folder, "--preset", "best", *data, "--output", tmp_path / "out", "--beam-width", 2]
    )
    assert_right(outcome)
    report = PruningReport.load(tmp_path / "out")
    given = {"dataset": str(text_file), "window_length": 20, "max_windows": 6, "num_blocks_to_remove": 2}
    assert report.recipe == SLEBConfig.best(**given, beam_width=2)
    assert (len(report.depths), report.search.criterion) == (2, "kl")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "--criterion kl --compensate every-block --search-space runs --beam-width 2 --search auto" in card
