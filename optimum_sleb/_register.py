"""Shipped as `optimum/commands/register/register_sleb.py`, where `optimum-cli` looks for the commands of plugins.

The broad `except` is needed: an exception here would stop every `optimum-cli` command, also of other packages.
"""

import sys

try:
    from optimum_sleb.cli import SLEBCommand

    REGISTER_COMMANDS = [SLEBCommand]
except Exception as error:
    print(f"optimum-sleb could not register its commands: {error!r}", file=sys.stderr)  # noqa: T201
    REGISTER_COMMANDS = []
