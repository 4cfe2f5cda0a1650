"""The beginning and the end of what `--help` shows of a command: a sentence, how it is called, examples."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence

PROGRAM = "optimum-cli sleb"


def describe(
    parser: ArgumentParser, sentence: str, call: str, examples: Sequence[tuple[str, str]], title: str = "examples"
) -> None:
    """Set description, usage and examples, each of a remark and the words behind the program's name.

    The usage that argparse makes lists every option, which nobody reads; they follow one by one anyway.
    """
    parser.formatter_class = RawDescriptionHelpFormatter
    command = call.partition(" ")[0]
    parser.prog = f"{PROGRAM} {command}" if command.islower() else PROGRAM  # argparse would take it from the usage
    parser.usage = f"{PROGRAM} {call}"
    parser.description = sentence
    lines = [f"  # {remark}\n  {PROGRAM} {words}" for remark, words in examples]
    parser.epilog = "\n".join([f"{title}:", *lines])
