"""Token windows of a text, of which only so much is read and tokenised as the windows need."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..errors import CalibrationError
from .texts import first_line
from .windows import TokenWindows

# The end of a piece can be tokenised otherwise than the same place of the whole text; so many tokens are given away.
_MARGIN = 128
_FIRST_CHARACTERS = 2**16
_MORE_CHARACTERS = 2**12
# No text and no tokenizer come near these. Beyond, the tokenizer is wrong, and the memory would fill.
_MOST_CHARACTERS_PER_TOKEN = 1000
_MOST_TOKENS_PER_CHARACTER = 100


def windows_of_text(
    pieces: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    max_windows: int | None,
    bos_per_window: bool,
) -> tuple[TokenWindows, bool]:
    """Cut the text that the pieces make up into windows; tell as well if a BOS token was put before each of them."""
    bos_id = _added_bos(tokenizer) if bos_per_window else None
    step = length if bos_id is None else length - 1

    def encode_text(text: str) -> Tensor:
        return encode(text, tokenizer, add_special_tokens=bos_id is None)

    ids = first_tokens(pieces, encode_text, None if max_windows is None else max_windows * step)
    return TokenWindows.from_stream(ids, length, max_windows, bos_id), bos_id is not None


def windows_of_documents(
    documents: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    max_windows: int | None,
    bos_per_window: bool,
) -> tuple[TokenWindows, bool]:
    """Cut documents, tokenised each on its own and joined by the EOS token, into windows; tell if a BOS token was put
    before each window (else the first one begins with it). A document that ends with EOS gets no second one."""
    eos_id, bos_id = tokenizer.eos_token_id, _added_bos(tokenizer)
    if eos_id is None:
        raise CalibrationError(
            f"The tokenizer ({type(tokenizer).__name__}) has no EOS token to join documents by; set "
            "tokenizer.eos_token, or give document_separator a text."
        )
    of_window = bos_id if bos_per_window else None
    step = length if of_window is None else length - 1
    needed = None if max_windows is None else max_windows * step
    parts = [torch.tensor([] if bos_id is None or bos_per_window else [bos_id], dtype=torch.long)]
    count = len(parts[0])
    for number, document in enumerate(documents):
        if number and not (len(parts[-1]) and parts[-1][-1] == eos_id):
            parts.append(torch.tensor([eos_id]))
            count += 1
        left = None if needed is None else max(needed - count, 1)
        ids = first_tokens([document], lambda text: encode(text, tokenizer, add_special_tokens=False), left)
        parts.append(ids)
        count += len(ids)
        if needed is not None and count >= needed:  # asked here, so that no further document is read
            break
    return TokenWindows.from_stream(torch.cat(parts), length, max_windows, of_window), of_window is not None


def first_tokens(pieces: Iterable[str], encode: Callable[[str], Tensor], needed: int | None) -> Tensor:
    """Return the token ids of a text, of which the first `needed` (`None`: all) are those of the whole text.

    A longer and longer start of it is tokenised, until a longer one no longer changes them.

    >>> first_tokens(iter(lambda: "ab", None), lambda text: torch.tensor([*text.encode()]), 3)[:3].tolist()
    [97, 98, 97]
    """
    text = _Start(pieces)
    if needed is None:
        return encode(text.whole())
    enough = needed + _MARGIN
    size, more, before = min(_FIRST_CHARACTERS, 8 * enough), _MORE_CHARACTERS, torch.empty(0)
    while True:
        start, is_whole = text.up_to(size)
        ids = encode(start)
        if is_whole or (len(before) >= enough and torch.equal(before[:needed], ids[:needed])):
            return ids
        if len(ids) >= enough:
            more = 2 * more if len(before) >= enough else max(more, size // 20)
            size += more
        elif len(start) > max(2**20, enough * _MOST_CHARACTERS_PER_TOKEN):
            raise CalibrationError(
                f"The tokenizer makes only {len(ids)} tokens of the first {len(start):,} characters of the text, "
                f"where {needed} are needed; use the tokenizer that belongs to the model, or other text."
            )
        else:
            # By the number of tokens so far, but never by far more: the start may be unlike the rest.
            size = min(max(size * enough * 21 // (20 * max(len(ids), 1)), size + size // 4), 16 * size)
        before = ids


class _Start:
    """The start of a text, which is read from its pieces as far as it is asked for."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces = iter(pieces)
        self._read: list[str] = []
        self._length = 0

    def up_to(self, size: int) -> tuple[str, bool]:
        """Return at most the first `size` characters, and tell if they are the whole text."""
        ended = False
        while self._length <= size and not ended:
            piece = next(self._pieces, None)
            ended = piece is None
            self._read.append(piece or "")
            self._length += len(piece or "")
        self._read = ["".join(self._read)]
        return self._read[0][:size], ended

    def whole(self) -> str:
        """Return the whole text."""
        return "".join(self._pieces)


def _added_bos(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the BOS token if the tokenizer puts it before a text; tried out, because GPT-2's has one but does not."""
    if tokenizer.bos_token_id is None:
        return None
    first = encode("a", tokenizer, add_special_tokens=True)[:1].tolist()
    return tokenizer.bos_token_id if first == [tokenizer.bos_token_id] else None


def encode(
    text: str, tokenizer: PreTrainedTokenizerBase, *, add_special_tokens: bool, what: str = "the text"
) -> Tensor:
    """Return the token ids of a text, of shape (tokens,); `what` names it in messages."""
    name = type(tokenizer).__name__
    try:
        # `verbose=False`: the text is longer than the model's context on purpose.
        encoded = tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)
        ids = torch.as_tensor(encoded.input_ids)
    except MemoryError:
        raise
    except Exception as error:  # a tokenizer is foreign code
        raise CalibrationError(
            f"The tokenizer ({name}) cannot tokenise {what} ({first_line(error)}); use the one that belongs to the "
            "model, or calibrate on token ids."
        ) from error
    if ids.dim() != 1 or len(ids) > _MOST_TOKENS_PER_CHARACTER * (len(text) + 10):
        raise CalibrationError(
            f"The tokenizer ({name}) gives token ids of shape {tuple(ids.shape)} for {len(text):,} characters; use "
            "the one that belongs to the model."
        )
    if len(ids) and (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool):
        kind = str(ids.dtype).removeprefix("torch.")
        raise CalibrationError(f"The tokenizer ({name}) gives values of type {kind} where token ids are expected.")
    if not len(ids) and len(text) >= _FIRST_CHARACTERS // 16:
        raise CalibrationError(
            f"The tokenizer ({name}) makes no token of {len(text):,} characters; use the one that belongs to "
            "the model."
        )
    return ids.long()
