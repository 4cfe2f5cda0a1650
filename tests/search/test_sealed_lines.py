"""Lines with a checksum: what was written is read back, and nothing else."""

import pytest

from optimum_sleb.search.sealed_lines import seal, unseal

ROW = {"key": "ab", "losses": [[1.5, float("inf")], [0.1, 2e-30]], "name": 'of a "checksum": "', "stop": 3}


def test_what_was_sealed_comes_back() -> None:
    assert unseal(seal(ROW).encode()) == ROW


def test_every_byte_counts() -> None:
    line = seal(ROW).encode()
    for place in range(len(line)):
        damaged = line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]
        with pytest.raises(ValueError, match="checksum"):
            unseal(damaged)
        with pytest.raises(ValueError, match="checksum"):
            unseal(line[:place])
