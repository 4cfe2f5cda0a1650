import pytest

from optimum_sleb.runtime.secrets import without_secrets

WORD = "correct-horse"


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer {}",
        "{{'authorization': 'Bearer {}', 'host': 'hub'}}",
        "https://hub/a?token={}&b=1",
        "https://me:{}@hub/a",
        "--token={}",
        "{{'token': '{}'}}",
        'api_key="{}"',
        "secret: {}",
    ],
)
def test_by_what_stands_beside_it(text: str) -> None:
    assert WORD not in without_secrets(text.format(WORD))


@pytest.mark.parametrize("name", ["HF_TOKEN", "MY_PASSWORD", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY"])
def test_of_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, f" {WORD}\n")
    assert without_secrets(f"it was {WORD}, said {WORD}\n") == "it was ***, said ***\n"


def test_given_and_by_its_look() -> None:
    assert without_secrets(f"{WORD} and hf_abcdefgh", WORD, None, "") == "*** and ***"


@pytest.mark.parametrize("text", ["tokenizer=x", "num_tokens: 4", "https://hub:443/a", "a monkey: b", "12 tokens, 3"])
def test_the_rest_stays(text: str) -> None:
    assert without_secrets(text) == text
