"""What a search costs, in passes for each window: decoder blocks, and heads (final norm, head, cross-entropy).

For n alive blocks and the n - 2 candidates between barriers of one block, the reference takes (n - 2)(n - 1) block
passes a step; the exact search walks up once, n - 2 passes, and runs what is above each candidate, (n - 2)(n - 1) / 2.
Both run the head once for each candidate. A pass of the head costs vocabulary x width multiplications a token, a block
about 12 x width^2.
"""

from collections.abc import Sequence


def exact_block_passes(alive: Sequence[int], candidates: Sequence[int]) -> int:
    """Block passes of a step of the exact search, for each window.

    Args:
        alive: Indices of the blocks that are there, ascending.
        candidates: Those of them that are tried, ascending.

    Returns:
        The number of passes.

    Example:
        >>> exact_block_passes(range(30), range(1, 29))
        434
    """
    position = {block: number for number, block in enumerate(alive)}
    walk = position[candidates[-1]]
    return walk + sum(len(alive) - 1 - position[block] for block in candidates)


def reference_block_passes(alive: Sequence[int], candidates: Sequence[int]) -> int:
    """Block passes of a step of the published procedure, for each window.

    Args:
        alive: Indices of the blocks that are there, ascending.
        candidates: Those of them that are tried, ascending.

    Returns:
        The number of passes.

    Example:
        >>> reference_block_passes(range(30), range(1, 29))
        812
    """
    return len(candidates) * (len(alive) - 1)


def exact_search_passes(
    num_blocks: int, num_removals: int, early_barrier: int = 1, latter_barrier: int = 1
) -> tuple[int, int]:
    """Passes of a whole exact search, for each window, where every block between the barriers can go.

    Args:
        num_blocks: Decoder blocks of the model.
        num_removals: Steps.
        early_barrier: Blocks at the start of the remaining stack that are never candidates.
        latter_barrier: Blocks at its end that are never candidates.

    Returns:
        Block passes and head passes.

    Example:
        >>> exact_search_passes(30, num_removals=6)
        (2189, 153)
    """
    block_passes = head_passes = 0
    for left in range(num_blocks, num_blocks - num_removals, -1):
        candidates = range(early_barrier, left - latter_barrier)
        block_passes += exact_block_passes(range(left), candidates)
        head_passes += len(candidates)
    return block_passes, head_passes
