"""What a step of the search costs, in passes: decoder blocks and heads, each run on one batch of windows.

For n alive blocks and the n - 2 candidates between barriers of one block, the reference takes (n - 2)(n - 1) block
passes; the exact search walks up once, n - 2 passes, and runs what is above each candidate, (n - 2)(n - 1) / 2. Both
run the head once for each candidate. A pass of the head costs vocabulary x width multiplications a token, a block
about 12 x width^2.
"""

from collections.abc import Sequence


def exact_block_passes(alive: Sequence[int], candidates: Sequence[int]) -> int:
    """Block passes of a step of the exact search, for each batch of windows.

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
    """Block passes of a step of the published procedure, for each batch of windows.

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
