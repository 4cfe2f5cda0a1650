"""The version of this package, where the build and every report take it from."""

__version__ = "0.1.0.dev0"
