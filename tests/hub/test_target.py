"""A push that cannot be is refused before the long work, and nothing is made on the Hub."""

from collections.abc import Callable
from typing import Any

import pytest

from optimum_sleb import ConfigError, PushError
from optimum_sleb.hub.target import check_target

from .local_hub import Fault, LocalHub, Repository


@pytest.mark.parametrize("repo_id", ["me/new", "new", "org/new", "me/mine"])
@pytest.mark.parametrize("private", [True, False, None])
def test_what_can_be(hub: LocalHub, repo_id: str, private: bool | None) -> None:
    hub.user["orgs"] = [{"name": "org"}]
    hub.repositories["me/mine"] = Repository(private=bool(private))
    check_target(repo_id, private=private)
    assert set(hub.repositories) == {"me/mine"}
    assert not [request for request in hub.requests if not request.startswith("GET")]


NAMES = (
    "",
    "a/b/c",
    "me/a b",
    "me/a--b",
    "-a",
    "me/" + "a" * 200,
    "me/a.git",
    "me/../x",
    "\x1b[2J",
    "me/a\nb",
    "me/ü",
)


@pytest.mark.parametrize("repo_id", NAMES)
def test_a_name_that_cannot_be(hub: LocalHub, repo_id: str) -> None:
    with pytest.raises(PushError, match="cannot be the name of a repository") as error:
        check_target(repo_id)
    assert str(error.value).isprintable()
    assert hub.requests == []


def role(name: str) -> dict[str, Any]:
    return {"auth": {"accessToken": {"role": name}}}


WRONG: dict[str, tuple[Callable[[LocalHub], Any], str]] = {
    "a token that reads": (lambda hub: hub.user.update(role("read")), "can only read; make one on the Hub"),
    "someone else": (
        lambda hub: hub.user.update(name="you"),
        "you cannot push to me/mine, as 'me' is not one of you;",
    ),
    "public": (lambda hub: hub.repositories.update({"me/mine": Repository(False)}), "is public, against private=True"),
    "no login": (lambda hub: hub.faults.append(Fault("/whoami", 401)), "the Hub answered 401; log in"),
    "a fault": (lambda hub: hub.faults.append(Fault("/whoami", 500)), "the Hub answered 500.*; try again later"),
    "no line": (lambda hub: hub.faults.append(Fault("/whoami", None)), "the connection was lost .*; try again"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_a_push_would_fail_at(hub: LocalHub, what: str) -> None:
    arrange, sentence = WRONG[what]
    arrange(hub)
    with pytest.raises(PushError, match=sentence) as error:
        check_target("me/mine", private=True, token="hf_some_secret_token")
    assert "secret" not in str(error.value)


def test_a_fine_grained_token_need_not_show_all_organisations(hub: LocalHub) -> None:
    hub.user.update(role("fineGrained"))
    check_target("org/new")


def test_a_pull_request_may_go_to_others(hub: LocalHub) -> None:
    check_target("you/yours", create_pr=True)


def test_offline() -> None:
    with pytest.raises(PushError, match="this machine is told to stay offline; unset HF_HUB_OFFLINE"):
        check_target("me/mine")
    with pytest.raises(ConfigError, match="holds a character that cannot be sent"):
        check_target("me/mine", token="hf_a\nb")


def test_without_a_token(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PushError, match="there is no token; log in with `hf auth login`"):
        check_target("me/mine")
    assert hub.requests == []
