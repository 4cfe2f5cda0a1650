"""Error classes, one for each kind of remedy. Every message names the problem, the value and what to do."""


class SLEBError(Exception):
    """Base class of every error that `optimum_sleb` raises on purpose.

    Catch it to tell an expected error, whose message says what to do, from a bug. The command line prints the message
    on one line and exits with code 2.
    """


class ConfigError(SLEBError, ValueError):
    """The recipe asks for something impossible: an unknown key, a sparsity outside (0, 1), too many blocks."""


class ModelNotFoundError(SLEBError, OSError):
    """There is no model (or no tokenizer) at the given name or path."""


class UnsupportedModelError(SLEBError, ValueError):
    """The model is not a causal LM, or its blocks cannot be removed with a result that is certain to be right."""


class CalibrationError(SLEBError, ValueError):
    """The calibration data cannot be read, or does not yield a single token window."""


class CriterionError(SLEBError, ValueError):
    """A criterion of one's own cannot be imported, fails, or returns what is no loss of each window."""


class NonFiniteLossError(SLEBError, ArithmeticError):
    """A loss is NaN or infinite."""


class OutOfMemoryError(SLEBError, RuntimeError):
    """Not even one token window at a time fits into the memory of the device."""


class JournalError(SLEBError, OSError):
    """The journal of an interrupted search is missing, damaged, from another run, or cannot be written."""


class VerificationError(SLEBError, RuntimeError):
    """A shortened model does not compute what the search measured, or its saved copy differs. Nothing was written."""


class OutputFolderError(SLEBError, OSError):
    """The output folder holds a model already, or cannot be written."""


class ReportError(SLEBError, ValueError):
    """A report or a recipe file is malformed, or belongs to another model."""


class PushError(SLEBError, OSError):
    """A folder cannot be pushed, or the Hub refused it. The folder is unchanged, so the push can be tried again."""


class RankError(SLEBError, RuntimeError):
    """One of several processes that search together failed, or the processes cannot be set up."""
