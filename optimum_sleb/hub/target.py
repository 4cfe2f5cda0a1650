"""The repository that a model is pushed to, looked at before the long work: its name, the token, who may see it."""

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.utils import httpx, validate_repo_id

from ..errors import PushError
from ..runtime.hub import check_token
from ..runtime.json import shown
from ..runtime.secrets import without_secrets
from .answers import reason_of


def check_target(
    repo_id: str, *, private: bool | None = None, token: str | None = None, create_pr: bool = False
) -> None:
    """Refuse a repository that a push would fail at: a name that cannot be, no login, a token that only reads, a
    namespace that is not the user's (but a pull request may go there), or another visibility. Nothing is created.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PushError(
            f"{shown(repo_id)} cannot be the name of a repository ({str(error).partition(':')[0].rstrip('.')}); give "
            "one such as 'me/smollm2-sleb-20'."
        ) from None
    check_token(token)
    try:
        _ask(HfApi(token=token), repo_id, private, create_pr)
        return
    except PushError:
        raise
    except (OSError, ValueError, httpx.HTTPError) as error:
        reason = without_secrets(reason_of(error), token)
    # Raised outside the handler, so that the original error, which may quote a token, is not chained to it.
    raise PushError(
        f"{repo_id} could not be pushed to: {reason}. Nothing was loaded; leave the push out, or mend that."
    )


def check_visibility(repo_id: str, is_private: bool, private: bool | None) -> None:
    """Refuse a repository whose visibility is not the one that was asked for."""
    if private is not None and private != is_private:
        raise PushError(
            f"{repo_id} exists and is {'private' if is_private else 'public'}, against private={private}; change that "
            "in its settings on the Hub, or push to another repository."
        )


def _ask(api: HfApi, repo_id: str, private: bool | None, create_pr: bool) -> None:
    if constants.HF_HUB_OFFLINE:  # told first: a token would not help
        raise OfflineModeIsEnabled
    user = api.whoami()
    token = user.get("auth", {}).get("accessToken", {}).get("role")
    if token == "read":
        raise PushError(f"The token of {user['name']} can only read; make one on the Hub that may write, and log in.")
    namespace = repo_id.partition("/")[0] if "/" in repo_id else user["name"]
    names = [user["name"], *(one["name"] for one in user.get("orgs", ()))]
    # A fine-grained token need not show all organisations.
    if token != "fineGrained" and not create_pr and namespace not in names:
        raise PushError(
            f"{user['name']} cannot push to {repo_id}, as {namespace!r} is not one of {', '.join(names[:20])}; change "
            "the name, or log in as someone who belongs to it."
        )
    try:
        info = api.model_info(f"{namespace}/{repo_id.rpartition('/')[2]}")
    except RepositoryNotFoundError:
        return  # it will be made
    check_visibility(repo_id, bool(info.private), private)
