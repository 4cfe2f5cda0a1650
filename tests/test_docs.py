"""The pages: pictures and cards are what the program draws today, commands are taken, links lead somewhere."""

import re
import runpy
import shlex
from argparse import ArgumentParser
from pathlib import Path

import pytest
import yaml
from matplotlib.image import imread

import optimum_sleb
from optimum_sleb import PruningReport
from optimum_sleb.card.loss_plot import draw_losses
from optimum_sleb.cli import SLEBCommand

from .conftest import ROOT

DOCS = ROOT / "docs"
PAGES = ["README.md", *(f"docs/{page.name}" for page in sorted(DOCS.glob("*.md")))]
COMMANDS = {info.name: info.subcommand_class for info in SLEBCommand.SUBCOMMANDS}


def commands_of(page: str) -> list[list[str]]:
    """The words behind `optimum-cli sleb` of every command of a page's blocks and sentences."""
    text = (ROOT / page).read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    lines = [line.strip() for line in code.splitlines() if "optimum-cli sleb" in line and not line.startswith("#")]
    spoken = [" ".join(words.split()) for words in re.findall(r"`(optimum-cli sleb [^`]*--[^`]*)`", text)]
    return [shlex.split(line, comments=True)[2:] for line in [*lines, *spoken] if line.startswith("optimum-cli")]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_one_that_the_program_takes(page: str) -> None:
    for name, *words in commands_of(page):
        if words == ["..."] or name not in COMMANDS:
            assert name in {"...", "COMMAND"}, name
            continue
        parser = ArgumentParser()
        COMMANDS[name].parse_args(parser)
        parser.parse_args([word for word in words if word != "..."])


def test_commands_are_found() -> None:
    assert len(commands_of("docs/quickstart.md")) >= 9


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"(?:\]\(|src=\"|srcset=\")(?!https?:)([^)#\"\s]+)", text):
        if page != "docs/model-card.md" or target != "LICENSE":
            assert ((ROOT / page).parent / target).exists(), target


def test_the_site_has_every_page_and_the_index_leads_to_it() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    shown = re.findall(r"\w[\w-]*\.md", yaml.dump(yaml.safe_load(text)["nav"]))
    assert sorted(shown) == sorted(page.name for page in DOCS.glob("*.md"))
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    assert {f"({name})" for name in shown if name != "index.md"} <= set(re.findall(r"\([\w-]+\.md\)", index))


def test_the_reference_has_every_public_name_once() -> None:
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    named = re.findall(r"^::: optimum_sleb\.(\w+)$", text, re.MULTILINE)
    assert sorted(named) == sorted(set(optimum_sleb.__all__) - {"__version__"})


@pytest.mark.parametrize("name", ["depth-light.svg", "depth-dark.svg"])
def test_the_picture_of_the_readme_is_of_the_recorded_numbers(name: str) -> None:
    drawn = runpy.run_path(str(ROOT / "benchmarks" / "picture.py"))["pictures"]()[name]
    assert (DOCS / "images" / name).read_text(encoding="utf-8") == drawn, "run benchmarks/picture.py again"


def test_a_measured_best_model_comes_into_the_picture() -> None:
    picture = runpy.run_path(str(ROOT / "benchmarks" / "picture.py"))
    scores = [{"dataset": "wiki.test.raw", "after": 20.0}]
    results = {
        "models": {name: {"removed": [], "scores": scores} for name in ("dense", "10 %", "20 %", "30 %")},
        "speeds": {"smollm2": [{"name": "10 %", "scenario": "prompt", "before": 3.0, "after": 2.0}]},
    }
    best = {"row": "best", "model": "SmolLM2-135M.gguf", "depth": 3, "blocks": [4, 5, 6]}
    healed = {"best": {"blocks": [4, 5, 6]}, "full-best": {"wikitext2": {"perplexity": 22.0}}}
    rows = picture["rows"](results, healed, [best | {"perplexity": {"wikitext2": {"value": 25.04}}}])
    assert [(row.name, row.gone, row.perplexity, row.speedup) for row in rows if row.colour == "best"] == [
        ("3, best preset", (4, 5, 6), 25.04, 1.5),
        ("3, best, healed", (4, 5, 6), 22.0, 1.5),
    ]
    drawn = picture["picture"](rows, picture["LIGHT"])
    assert ">25.0<" in drawn
    assert drawn.count(f'fill="{picture["LIGHT"]["best"]}"') == 8  # three blocks and a bar each


def test_model_card_page() -> None:
    page = runpy.run_path(str(DOCS / "write_model_card.py"))["page"]
    written = (DOCS / "model-card.md").read_text(encoding="utf-8")
    assert written == page(PruningReport.load(DOCS)), "run docs/write_model_card.py again"


def test_the_picture_is_of_this_report(tmp_path: Path) -> None:
    draw_losses(PruningReport.load(DOCS), tmp_path / "loss.png")
    drawn, shown = imread(tmp_path / "loss.png"), imread(DOCS / "sleb_loss.png")
    # Another version of matplotlib may set a letter a pixel further.
    assert drawn.shape == shown.shape
    assert abs(drawn - shown).mean() < 0.01
