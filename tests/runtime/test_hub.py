"""A file of a folder or of the Hub, and all that can be wrong on the way, by the recipe and by the report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optimum_sleb import ConfigError, PruningReport, ReportError, SLEBConfig

from ..hub.local_hub import Commit, Fault, LocalHub, Repository

READERS: dict[str, Callable[..., Any]] = {
    "recipe": SLEBConfig.from_pretrained,
    "report": PruningReport.from_pretrained,
}


@pytest.fixture(params=READERS)
def read(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return READERS[request.param]


def test_a_recipe_from_the_hub(hub: LocalHub, tmp_path: Path) -> None:
    config = SLEBConfig(sparsity=0.2, dataset="c4")
    file = config.save_pretrained(tmp_path)
    old, new = Commit({file.name: b"{}"}), Commit({file.name: file.read_bytes()})
    hub.repositories["me/small"] = Repository(False, {"main": [old, new]})
    assert SLEBConfig.from_pretrained("me/small") == SLEBConfig.from_pretrained(tmp_path) == config
    with pytest.raises(ConfigError, match="exactly one"):
        SLEBConfig.from_pretrained("me/small", revision=old.oid)


def test_what_is_not_there(hub: LocalHub, read: Callable[..., Any], tmp_path: Path) -> None:
    hub.repositories["me/dense"] = Repository(False)
    for name, options, sentence in [
        ("me/dense", {}, r"There is no sleb_\w+.json at 'me/dense': the repository holds no"),
        ("me/dense", {"revision": "v9"}, "has no revision 'v9'; name a branch, tag or commit"),
        ("me/nothing", {}, "no repository that you can see; check the name, or log in"),
        ("me/dense", {"local_files_only": True, "cache_dir": tmp_path / "c"}, "not in the cache, .*; go online"),
        ("no/such/thing", {}, "neither a folder nor a name on the Hub; name one"),
        ("o" * 300, {}, "neither a folder nor a name on the Hub"),
        ("", {}, "neither a folder nor a name on the Hub"),
        (tmp_path, {}, r"holds no sleb_\w+.json; name a folder that does"),
    ]:
        with pytest.raises(ReportError, match=sentence) as error:
            read(name, **options)
        assert len(str(error.value)) < 500
        assert "\n" not in str(error.value)


def test_faults_of_the_hub_tell_no_token(hub: LocalHub, read: Callable[..., Any]) -> None:
    hub.repositories["me/dense"] = Repository(False)
    hub.faults.append(Fault("/resolve/", None))
    with pytest.raises(ReportError, match="There is no sleb_") as error:
        read("me/dense", token="hf_very_secret_token")
    told: BaseException | None = error.value
    while told is not None:  # a traceback would show all of them
        assert "secret" not in repr(told)
        told = told.__cause__ or told.__context__
    with pytest.raises(ConfigError, match="The token holds a character that cannot be sent"):
        read("me/dense", token="hf_very\nsecret")


def test_offline(read: Callable[..., Any]) -> None:
    with pytest.raises(ReportError, match="the Hub cannot be asked; go online, or name a folder"):
        read("me/small")
