"""Which blocks may go: the barriers, and the blocks that a recipe names."""

import re
from collections.abc import Iterable, Sequence
from operator import index
from typing import Any

from ..errors import ConfigError
from ..runtime.json import shown
from .bounds import MAX_BLOCKS

_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", re.ASCII)


def block_numbers(value: Any, name: str) -> tuple[int, ...]:
    """Return block numbers, ascending and each once, of a text with ranges or a sequence of numbers and such texts.

    >>> block_numbers("14, 0-3", "protected_blocks"), block_numbers([2, "5-6"], "protected_blocks")
    ((0, 1, 2, 3, 14), (2, 5, 6))
    """
    parts = re.split(r"[,\s]+", value.strip(", \n\t")) if isinstance(value, str) else value
    if not isinstance(parts, Iterable) or isinstance(parts, bytes | dict):
        raise _malformed(value, name)
    numbers: set[int] = set()
    for part in parts:
        if isinstance(part, str) and re.search(r"[,\s]", part.strip()):
            numbers.update(block_numbers(part, name))
        else:
            numbers.update(_numbers(part, name))
    if not numbers:
        raise _malformed(value, name)
    return tuple(sorted(numbers))


def as_ranges(numbers: Iterable[int]) -> str:
    """Return block numbers as a text, in the one form that a recipe keeps.

    >>> as_ranges([14, 0, 1, 2, 3])
    '0-3,14'
    """
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def canonical_blocks(value: Any, name: str) -> str | None:
    """Return what a recipe keeps of the block numbers that it is given."""
    return None if value is None else as_ranges(block_numbers(value, name))


def check_not_both(protected: Any, candidates: Any) -> None:
    """Refuse a block that is protected and named as a candidate."""
    if protected is None or candidates is None:
        return
    both = set(block_numbers(protected, "protected_blocks")) & set(block_numbers(candidates, "candidate_blocks"))
    if both:
        raise ConfigError(
            f"protected_blocks={protected!r} and candidate_blocks={candidates!r} both name {_blocks(both)}; leave "
            f"{'them' if len(both) > 1 else 'it'} out of one of the two."
        )


def candidates_among(
    blocks: Sequence[int],
    *,
    early_barrier: int,
    latter_barrier: int,
    protected_blocks: str | None,
    candidate_blocks: str | None,
) -> list[int]:
    """Return the indices of the blocks that may go, ascending; `blocks` are the model's, by their dense number.
    The other arguments are a recipe's fields. Raise ConfigError for numbers that the model does not have.
    """
    # The published barriers refer to the stack that is left at each step. Yet what lies behind one never goes, so
    # it is the same blocks at every step, and one answer holds for the whole search.
    between = range(early_barrier, len(blocks) - latter_barrier)
    protected = _named(protected_blocks, "protected_blocks", blocks)
    named = _named(candidate_blocks, "candidate_blocks", blocks)
    behind = [block for place, block in enumerate(blocks) if place not in between and block in named]
    if behind:
        raise ConfigError(
            f"candidate_blocks={candidate_blocks!r} names {_blocks(behind)}, which early_barrier={early_barrier} or "
            f"latter_barrier={latter_barrier} protects; lower that barrier or leave it out."
        )
    return [place for place in between if blocks[place] not in protected and (not named or blocks[place] in named)]


def protectors(
    *, early_barrier: int, latter_barrier: int, protected_blocks: str | None, candidate_blocks: str | None
) -> str:
    """Return in words what keeps blocks from going, for a sentence that ends with "protect"."""
    parts = [f"early_barrier={early_barrier}", f"latter_barrier={latter_barrier}"]
    parts += [f"protected_blocks={protected_blocks!r}"] if protected_blocks else []
    parts += [f"candidate_blocks={candidate_blocks!r}"] if candidate_blocks else []
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _named(text: str | None, name: str, blocks: Sequence[int]) -> set[int]:
    """Return the numbers in a field; refuse those that are not among the model's blocks."""
    numbers = set() if text is None else set(block_numbers(text, name))
    if missing := numbers - set(blocks):
        raise ConfigError(
            f"{name}={text!r} names {_blocks(missing)}, which the model does not have (any more); it has the blocks "
            f"{as_ranges(blocks)}, by their numbers in the dense model."
        )
    return numbers


def _numbers(part: Any, name: str) -> range:
    if isinstance(part, str):
        found = _RANGE.fullmatch(part.strip())
        if found is None:
            raise _malformed(part, name)
        first, last = int(found[1]), int(found[2] or found[1])
    else:
        try:
            first = last = index(part)
        except TypeError:
            raise _malformed(part, name) from None
        if isinstance(part, bool):
            raise _malformed(part, name)
    if not 0 <= first <= last < MAX_BLOCKS:
        raise _malformed(part, name)
    return range(first, last + 1)


def _malformed(value: Any, name: str) -> ConfigError:
    return ConfigError(
        f"{name} must name blocks by their numbers in the dense model, from 0 to {MAX_BLOCKS - 1:,}, such as '0-3,14' "
        f"or [0, 1, 2, 3, 14]; got {shown(value)}."
    )


def _blocks(numbers: Iterable[int]) -> str:
    numbers = sorted(numbers)
    return f"block{'s' if len(numbers) > 1 else ''} {as_ranges(numbers)}"
