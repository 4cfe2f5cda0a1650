"""What can go wrong, one class for each kind of remedy. Every message says what, with which value, and what to do."""


class SLEBError(Exception):
    """Base class of every error that `optimum_sleb` raises on purpose.

    Catch it to tell a refusal with a remedy from a bug. The command line prints its message on one line and ends with
    exit code 2.
    """


class ConfigError(SLEBError, ValueError):
    """The recipe asks for something impossible: an unknown key, a sparsity outside (0, 1), too many blocks."""


class ModelNotFoundError(SLEBError, OSError):
    """There is no model (or no tokenizer) at the given place."""


class UnsupportedModelError(SLEBError, ValueError):
    """Blocks cannot be taken out of this model so that the result is certainly right, or it is not a causal LM."""


class CalibrationError(SLEBError, ValueError):
    """The calibration data cannot be read, or does not yield a single token window."""


class NonFiniteLossError(SLEBError, ArithmeticError):
    """A loss came out as NaN or infinite."""


class OutOfMemoryError(SLEBError, RuntimeError):
    """Not even one window at a time fits the memory of the device."""


class JournalError(SLEBError, OSError):
    """The journal of an interrupted search is missing, damaged, of another run, or cannot be written."""


class VerificationError(SLEBError, RuntimeError):
    """A shortened model does not compute what the search measured. Nothing was written."""


class OutputFolderError(SLEBError, OSError):
    """The output folder cannot take the model."""


class ReportError(SLEBError, ValueError):
    """A report or a recipe file is malformed, or belongs to another model."""


class PushError(SLEBError, OSError):
    """A folder cannot be pushed, or the Hub did not take it. It is as it was, so the push can be tried again."""


class RankError(SLEBError, RuntimeError):
    """One of several processes that search together failed, or there are none."""
