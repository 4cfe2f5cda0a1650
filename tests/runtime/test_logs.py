"""The log of the package: where it goes, and at which level."""

import logging
import subprocess
import sys

import pytest

from optimum_sleb import set_verbosity
from optimum_sleb.runtime.logs import get_logger, hides_bars, log_of_program

LOGGER = logging.getLogger("optimum_sleb")


@pytest.fixture(autouse=True)
def level_as_before():
    level = LOGGER.level
    yield
    LOGGER.setLevel(level)


def run(code: str, verbosity: str = "", setup: str = "") -> str:
    """What a program that logs at two levels writes to stderr."""
    program = f"import logging\n{setup}\nfrom optimum_sleb.runtime.logs import get_logger\n{code}\n"
    program += "log = get_logger('optimum_sleb.x')\nlog.warning('W')\nlog.info('I')\n"
    environment = {"PYTHONPATH": ":".join(sys.path), "OPTIMUM_SLEB_VERBOSITY": verbosity}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, "")
    return done.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    ("verbosity", "setup", "expected"),
    [
        ("", "", "W\n"),
        ("info", "", "W\nI\n"),
        ("ERROR", "", ""),
        ("loud", "", "OPTIMUM_SLEB_VERBOSITY must be one of debug, info, warning, error, got 'loud'; it is taken as "
         "'warning'.\nW\n"),
        ("", "logging.getLogger('optimum_sleb').setLevel('INFO')", "W\nI\n"),
        ("info", "logging.basicConfig(format='own %(message)s')", "own W\nown I\n"),
    ],
)  # fmt: skip
def test_of_a_program(verbosity: str, setup: str, expected: str) -> None:
    assert run("", verbosity, setup) == expected


def test_set_verbosity() -> None:
    set_verbosity("info")
    assert get_logger("optimum_sleb.x").isEnabledFor(logging.INFO)
    assert hides_bars() is None
    set_verbosity("error")
    assert not get_logger("optimum_sleb.x").isEnabledFor(logging.WARNING)
    assert hides_bars() is True
    with pytest.raises(ValueError, match="must be one of debug, info, warning, error; got 'loud'"):
        set_verbosity("loud")


def test_the_log_of_a_command_goes_to_stderr_once(capsys: pytest.CaptureFixture) -> None:
    with log_of_program("info"):
        get_logger("optimum_sleb.x").info("I")
    get_logger("optimum_sleb.x").error("not ours any more: pytest has handlers")
    assert capsys.readouterr().err == "I\n"
