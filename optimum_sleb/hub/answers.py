"""What the Hub answered when it refused, in words and with a remedy."""

import json

from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import httpx

from ..card.format import one_line

_REMEDIES = {
    401: "log in with `hf auth login`, or pass a valid token",
    403: "use a token that may write there, or another repository",
    404: "check the names of repository and branch",
    409: "someone else may be writing there; try again",
    412: "someone else pushed in the meantime; look at what changed and try again",
    429: "wait a few minutes and try again",
}


def reason_of(error: Exception) -> str:
    """Return the end of a sentence: what went wrong, and what to do."""
    if isinstance(error, OfflineModeIsEnabled):
        return "this machine is told to stay offline; unset HF_HUB_OFFLINE"
    if isinstance(error, LocalTokenNotFoundError):
        return "there is no token; log in with `hf auth login`, or set HF_TOKEN"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        remedy = _REMEDIES.get(status, "try again later" if status >= 500 else "mend what it says and try again")
        detail = f" ({one_line(error.server_message)[:200]})" if error.server_message else ""
        return f"the Hub answered {status}{detail}; {remedy}"
    if isinstance(error, httpx.TransportError):
        return f"the connection was lost ({one_line(str(error))[:200]}); try again"
    if isinstance(error, json.JSONDecodeError):
        return "the Hub's answer was not readable; try again later"
    return f"{one_line(str(error)).rstrip('.')[:300]}"
