from dataclasses import replace
from pathlib import Path

import pytest

from optimum_sleb import ConfigError
from optimum_sleb.card.base_card import BaseCardFields, given_fields, hub_name, read_base_card, read_own_card

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


def test_the_base_of_the_dense_model_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\nbase_model: me/foundation\n---\n")
    assert read_base_card(str(tmp_path)) == BaseCardFields(license="mit")
    assert read_own_card(str(tmp_path)) == BaseCardFields(license="mit", base_model="me/foundation")


def test_what_is_given_goes_first_and_a_licence_is_whole() -> None:
    given = given_fields("apache-2.0", "me/dense", "en")
    assert given == BaseCardFields(license="apache-2.0", base_model="me/dense", language=["en"])
    assert given.or_else(FIELDS) == given
    assert given_fields(base_model="me/dense").or_else(FIELDS) == replace(FIELDS, base_model="me/dense")


@pytest.mark.parametrize(
    "license", ["", " ", "Apache 2.0", "mit\n", "---", "{{ x }}", "../LICENSE", "a" * 100, 3, ["mit"], "\uff4dit"]
)
def test_no_licence(license: object) -> None:
    with pytest.raises(ConfigError, match=r"is no identifier of the Hub; give one such as 'apache-2.0'"):
        given_fields(license=license)


@pytest.mark.parametrize("name", ["", "/home/me/model", "./model", "a/b/c", "me/<script>", "a b", 3, ["me/dense"]])
def test_no_name_on_the_hub(name: object) -> None:
    with pytest.raises(ConfigError, match="is no name on the Hub; give one such as"):
        given_fields(base_model=name)


@pytest.mark.parametrize(
    "language", ["", "English please", [], ["en", ""], ["en", 3], {"en": 1}, 3, "e\nn", "x" * 100]
)
def test_no_language(language: object) -> None:
    with pytest.raises(ConfigError, match="must be codes of ISO 639, such as"):
        given_fields(language=language)
