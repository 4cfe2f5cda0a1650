"""Reading and tokenising only the start of a text, against tokenising all of it at once."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from optimum_sleb import CalibrationError, SLEBConfig
from optimum_sleb.calibration import tokens
from optimum_sleb.calibration.sources import load_calibration
from optimum_sleb.calibration.windows import TokenWindows

from ..conftest import make_text

SMOLLM2 = Path(os.environ.get("SLEB_TEST_SMOLLM2", "/work/baseline/dense"))


def wordpiece() -> PreTrainedTokenizerFast:
    """A tokenizer that makes one unknown token of a word of more than 100 characters, however long."""
    letters = {letter: number for number, letter in enumerate(["[UNK]", "a", "b", "##a", "##b", "ab", "##ab"])}
    backend = Tokenizer(models.WordPiece(letters, unk_token="[UNK]", max_input_chars_per_word=100))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")


def unigram() -> PreTrainedTokenizerFast:
    """A tokenizer without words: the best split of the whole text, as T5 and XLM-R have it."""
    pieces = [("<unk>", 0.0), ("a", -2.0), ("b", -2.5), ("ab", -3.0), ("aab", -3.2), ("ba", -3.1), (" ", -1.0)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


def smollm2() -> PreTrainedTokenizerBase:
    if not (SMOLLM2 / "tokenizer.json").is_file():
        pytest.skip(f"{SMOLLM2} with the tokenizer of SmolLM2 is not there")
    return AutoTokenizer.from_pretrained(SMOLLM2)


def words_of(letters: str, spaces: str, seed: int, longest: int = 12) -> str:
    choose = random.Random(seed)
    return "".join(
        "".join(choose.choices(letters, k=choose.randint(1, longest))) + choose.choice(spaces) for _ in range(3000)
    )


TEXTS = {
    "words": lambda: words_of("abcdefghij.,'", "   \n\t", 0),
    "spaces": lambda: words_of("ab", " \n", 1, 2).replace("a", " " * 37),
    "digits": lambda: "".join(random.Random(2).choices("0123456789", k=12_000)),
    "one letter": lambda: "a" * 12_000,
    "no spaces": lambda: words_of("abcdeé漢字ß🙂", "-", 3),
    "other scripts": lambda: words_of("漢字かなкириллицаعربي🙂👩‍👩‍👧é", " 。\r\n", 4),
    "special tokens": lambda: words_of("ab", " ", 5).replace("aa", "<|endoftext|>"),
    "long words": lambda: words_of("ab", " ", 6, 300),
}


def in_pieces(text: str, size: int) -> Iterator[str]:
    for start in range(0, len(text), size):
        yield text[start : start + size]


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("make", [smollm2, wordpiece, unigram])
@pytest.mark.long
def test_the_windows_are_those_of_the_whole_text(make, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, text = make(), TEXTS[kind]()
    whole = torch.tensor(tokenizer(text, verbose=False).input_ids)
    for first_characters in (64, 1000):  # the smaller, the more borders of pieces are tried
        monkeypatch.setattr(tokens, "_FIRST_CHARACTERS", first_characters)
        for length, count in [(2, 1), (7, 4), (100, 20), (1000, 1)]:
            if len(whole) < length:
                continue
            expected = TokenWindows.from_stream(whole, length, count)
            windows, _ = tokens.windows_of_text(in_pieces(text, 999), tokenizer, length, count, bos_per_window=True)
            assert windows.fingerprint == expected.fingerprint, (first_characters, length, count)


@pytest.mark.parametrize("bos_per_window", [True, False])
def test_bos(bos_per_window: bool, bos_tokenizer) -> None:
    text = make_text(6_000)
    all_windows, _ = tokens.windows_of_text([text], bos_tokenizer, 10, None, bos_per_window)
    first, has_bos = tokens.windows_of_text(in_pieces(text, 50), bos_tokenizer, 10, 20, bos_per_window)
    assert has_bos == bos_per_window
    assert first.fingerprint == TokenWindows(all_windows.windows[:20]).fingerprint


def test_no_more_is_read_than_the_windows_need(tokenizer) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "w3 w4 w5 w6 w7 "

    windows, _ = tokens.windows_of_text(endless(), tokenizer, 32, 4, bos_per_window=True)
    assert len(windows) == 4
    assert taken < 1000


def test_a_dataset_without_end(tokenizer) -> None:
    def rows() -> Iterator[dict[str, str]]:
        while True:
            yield {"text": "w3 w4"}

    data = datasets.IterableDataset.from_generator(rows)
    assert len(load_calibration(data, tokenizer, SLEBConfig(sparsity=0.2, window_length=8)).windows) == 128


def test_rows_without_end() -> None:
    def rows() -> Iterator[dict[str, list[int]]]:
        yield from [{"input_ids": [3, 4, 5]}] * 4
        raise AssertionError("a fifth row was read")

    data = datasets.IterableDataset.from_generator(rows)
    config = SLEBConfig(sparsity=0.2, max_windows=4)
    assert len(load_calibration(data, None, config).windows) == 4


@pytest.mark.long
def test_a_tokenizer_that_makes_few_tokens_of_endless_text() -> None:
    tokenizer = wordpiece()
    with pytest.raises(CalibrationError, match=r"makes only 1 tokens of the first [\d,]+ characters.*8 are needed"):
        tokens.windows_of_text(iter(lambda: "a" * 10**5, None), tokenizer, 8, 1, bos_per_window=True)


def test_a_tokenizer_that_makes_nothing() -> None:
    tokenizer = wordpiece()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("a", "")
    with pytest.raises(CalibrationError, match="makes no token of 65,536 characters; use the one that belongs"):
        tokens.windows_of_text(["a" * 100_000], tokenizer, 2048, 128, bos_per_window=True)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda text: [list(range(5))] * 3, r"gives token ids of shape \(3, 5\)"),
        (lambda text: list(range(101 * (len(text) + 10))), "gives token ids of shape"),
        (lambda text: ["a"], r"cannot tokenise the text \("),
        (lambda text: 5, r"gives token ids of shape \(\)"),
        (lambda text: None, r"cannot tokenise the text \("),
        (lambda text: [2**70], r"cannot tokenise the text \("),
        (lambda text: 1 / 0, r"cannot tokenise the text \(ZeroDivisionError: division by zero\)"),
        (lambda text: [1.5], "gives values of type float32 where token ids are expected"),
    ],
)
def test_a_tokenizer_that_answers_strangely(answer, message: str) -> None:
    class Strange:
        bos_token_id = None

        def __call__(self, text: str, **_: object) -> object:
            return type("Encoding", (), {"input_ids": answer(text)})

    with pytest.raises(CalibrationError, match=message):
        tokens.windows_of_text(["some text"], Strange(), 2, 1, bos_per_window=True)


def test_whatever_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first tokens do not depend on where the pieces end, even where a letter's token depends on what follows."""

    def encode(text: str) -> Tensor:
        return torch.tensor([ord(a) + 100 * (b == "b") for a, b in zip(text, f"{text[1:]} ", strict=True)])

    text = words_of("ab", " ", 7)
    for needed in (1, 50, 5000):
        assert torch.equal(tokens.first_tokens([text], encode, needed)[:needed], encode(text)[:needed])
