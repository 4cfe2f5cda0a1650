"""Version of this package, and those of what decides its results."""

import platform
from importlib.metadata import version

__version__ = "0.2.0"


def versions() -> dict[str, str]:
    """Return the versions of Python, this package and the libraries that can change a result."""
    libraries = {name: version(name) for name in ("torch", "transformers")}
    return {"optimum-sleb": __version__, "python": platform.python_version(), **libraries}
