"""The optional packages that healing uses, refused in one sentence where they are missing."""

from importlib.util import find_spec

from ..errors import ConfigError


def check_installed(package: str, what: str) -> None:
    """Raise ConfigError unless a package is installed; `what` begins the sentence and names its use."""
    if find_spec(package) is None:
        raise ConfigError(f"{what} by {package}, which is not installed; install it with `pip install {package}`.")
