"""Chat templates that mark what the assistant says, which masks of assistant turns need."""

import re
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..errors import CalibrationError
from .texts import first_line

_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")


def has_markers(template: str | dict[str, str]) -> bool:
    """Tell whether a chat template, of several the default one, marks the assistant's turns.

    >>> has_markers("{% generation %}{{ message.content }}{% endgeneration %}")
    True
    """
    text = template.get("default") if isinstance(template, dict) else template
    return _MARK.search(str(text)) is not None


def template_with_markers(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return TRL's version of a tokenizer's chat template, which has the marks; refuse where TRL knows none.
    It is what SFTTrainer uses with `assistant_only_loss`."""
    try:
        found = _known_to_trl(tokenizer)
    except ImportError as error:
        raise _no_marks("install TRL (pip install trl), which has them for known templates") from error
    except MemoryError:
        raise
    except Exception as error:  # it tries the template out, which is foreign code
        raise _no_marks(f"TRL has none for this template ({first_line(error)[:80]})") from error
    if found is None:
        raise _no_marks("TRL has none for this template")
    return found


def _known_to_trl(tokenizer: Any) -> str | None:
    from trl.chat_template_utils import get_training_chat_template

    template: str | None = get_training_chat_template(tokenizer)
    return template


def _no_marks(reason: str) -> CalibrationError:
    return CalibrationError(
        'The chat template does not mark the assistant\'s turns, on which loss="labels" is measured: '
        f"{reason}; put what they say between {{% generation %}} and {{% endgeneration %}} in "
        "tokenizer.chat_template, or give prompt and completion instead of messages."
    )
