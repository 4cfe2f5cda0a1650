"""What `--help` shows first, and that its examples are right."""

import re
import shlex
import sys
from argparse import ArgumentParser

import pytest
from optimum.commands import optimum_cli

from optimum_sleb.cli import SLEBCommand

COMMANDS = {info.name: info.subcommand_class for info in SLEBCommand.SUBCOMMANDS}
# Groups of options, in the order in which a person needs them.
ORDER = ["model", "output", "how much goes", "preset", "calibration data", "search", "device", "Hub", "what is told"]


def parser_of(name: str) -> ArgumentParser:
    parser = ArgumentParser()
    (COMMANDS[name] if name else SLEBCommand).parse_args(parser)
    return parser


def examples_of(text: str) -> list[list[str]]:
    return [shlex.split(words) for words in re.findall(r"^  optimum-cli sleb (.+)$", text, re.MULTILINE)]


@pytest.mark.parametrize("name", COMMANDS)
def test_first_a_sentence_and_last_three_examples(name: str) -> None:
    parser = parser_of(name)
    text = parser.format_help()
    assert text.startswith(f"usage: optimum-cli sleb {name} ")
    assert text.splitlines()[2] == parser.description.splitlines()[0]
    assert max(map(len, parser.description.splitlines())) <= 80
    examples = examples_of(text)
    assert len(examples) == 3
    for words in examples:
        assert words[0] == name
        parser.parse_args(words[1:])


def test_options_of_prune_stand_in_the_order_of_need() -> None:
    titles = re.findall(r"^(\w.*):$", parser_of("prune").format_help(), re.MULTILINE)
    places = [next(place for place, title in enumerate(titles) if title.startswith(name)) for name in ORDER]
    assert places == sorted(places)


def test_sleb_alone_says_what_to_do_first(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "argv", ["optimum-cli", "sleb"])
    optimum_cli.main()
    text = capsys.readouterr().out
    first = examples_of(text.partition("what to do first:")[2])
    assert [words[0] for words in first] == ["check", "prune", "evaluate"]
    for name, *words in first:
        parser_of(name).parse_args(words)
    assert set(COMMANDS) <= set(text.split())


def test_an_error_names_the_command(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        parser_of("prune").parse_args(["--model", "x"])
    assert "\noptimum-cli sleb prune: error: the following arguments are required" in capsys.readouterr().err
