"""Cost of a search, in passes per token window: of decoder blocks, and of heads (final norm, head, cross-entropy)."""

from collections.abc import Iterable, Sequence

# For n blocks and n - 2 candidates (barriers of one block), the reference takes (n - 2)(n - 1) block passes a step;
# the exact search takes n - 2 for its walk and (n - 2)(n - 1) / 2 for the blocks above each candidate. Both take one
# head pass per candidate. Multiplications per token: vocabulary x width for a head, about 12 x width^2 for a block.


def exact_block_passes(alive: Sequence[int], candidates: Sequence[int]) -> int:
    """Return the block passes of one step of the exact search, per window. Both arguments ascend.

    >>> exact_block_passes(range(30), range(1, 29))
    434
    """
    position = {block: number for number, block in enumerate(alive)}
    walk = position[candidates[-1]]
    return walk + sum(len(alive) - 1 - position[block] for block in candidates)


def shared_block_passes(stacks: Iterable[Sequence[int]]) -> int:
    """Return the block passes of the exact search for several stacks, per window: one for every block on top of the
    same blocks below, in whichever of them. For the candidates of a greedy step it is `exact_block_passes`.

    >>> shared_block_passes([(0, 2, 3), (0, 1, 3), (0, 1, 2)]), exact_block_passes(range(4), [1, 2, 3])
    (6, 6)
    """
    return len({tuple(stack[:end]) for stack in stacks for end in range(1, len(stack) + 1)})


def reference_block_passes(alive: Sequence[int], candidates: Sequence[int]) -> int:
    """Return the block passes of one step of the published procedure, per window.

    >>> reference_block_passes(range(30), range(1, 29))
    812
    """
    return len(candidates) * (len(alive) - 1)


def exact_search_passes(num_blocks: int, num_removals: int, candidates: Sequence[int]) -> tuple[int, int]:
    """Return block and head passes of a whole exact search, per window; `candidates`, those of the first step, ascend.

    >>> exact_search_passes(30, num_removals=6, candidates=range(1, 29))
    (2189, 153)
    """
    alive, left = list(range(num_blocks)), list(candidates)
    block_passes = head_passes = 0
    for _ in range(min(num_removals, len(left))):
        block_passes += exact_block_passes(alive, left)
        head_passes += len(left)
        # Which one goes matters only if the candidates are not neighbours; the middle one is the mean then, about.
        alive.remove(left.pop(len(left) // 2))
    return block_passes, head_passes
