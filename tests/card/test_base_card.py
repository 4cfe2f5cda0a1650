from pathlib import Path

import pytest

from optimum_sleb.card.base_card import BaseCardFields, hub_name, read_base_card

from ..hub.local_hub import Commit, LocalHub, Repository

CARD = (
    "---\nlicense: other\nlicense_name: nice\nlicense_link: LICENSE\nlanguage:\n- en\n- de\ntags: [x]\n---\n# Dense\n"
)
FIELDS = BaseCardFields(license="other", license_name="nice", license_link="LICENSE", language=["en", "de"])


def test_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(CARD)
    assert read_base_card(str(tmp_path)) == FIELDS


def test_from_the_hub(hub: LocalHub) -> None:
    files = {"README.md": CARD.encode()}
    hub.repositories["me/dense"] = Repository(False, {"main": [Commit(files)]})
    assert read_base_card("me/dense") == FIELDS


@pytest.mark.parametrize(
    "content",
    ["", "# No front matter", "---\n[\n---\n", "---\nlicense: 3\nlanguage: {a: b}\n---\n", "---\nx: 1\n---\n"],
)
def test_a_card_that_does_not_say(content: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(content)
    assert read_base_card(str(tmp_path)) == BaseCardFields()


@pytest.mark.parametrize("base_model", [None, "", "/no/such/folder", "me/dense"])
def test_no_card_or_no_network(base_model: str | None) -> None:
    assert read_base_card(base_model) == BaseCardFields()


def test_a_model_without_a_card(hub: LocalHub) -> None:
    assert read_base_card("me/nothing") == BaseCardFields()


@pytest.mark.parametrize("path", ["/home/me/model", "./model", "a/b/c", "C:\\models\\dense", "", None])
def test_a_path_is_no_name(path: str | None) -> None:
    assert hub_name(path) is None
