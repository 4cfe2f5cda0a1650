"""How long a healing takes: so many steps of the optimizer, tokens or minutes."""

import math
from dataclasses import dataclass

from ..errors import ConfigError
from ..runtime.json import shown

STEPS = 150  # docs/healing.md: more than two epochs over little text learn it by heart
# Rows that are read for a budget in minutes: at 512 tokens, eight million tokens.
ROWS_OF_MINUTES = 16_384


@dataclass(frozen=True)
class Budget:
    """The budget of a healing; at most one is given."""

    steps: int | None = None
    tokens: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("steps", "tokens", "minutes") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigError(f"A healing has one budget, but {' and '.join(given)} were given; keep one of them.")
        for name in given:
            value = getattr(self, name)
            right = type(value) is int if name != "minutes" else type(value) in (int, float) and math.isfinite(value)
            if not right or value <= 0:
                kind = "a number" if name == "minutes" else "a whole number"
                raise ConfigError(f"{name} must be {kind} above 0; got {shown(value)}.")

    def rows_to_read(self, batch_size: int, length: int) -> int:
        """Return how many rows of `length` tokens are trained on at most, each once.

        >>> Budget().rows_to_read(16, 512), Budget(tokens=100_000).rows_to_read(16, 512)
        (2400, 208)
        """
        if self.minutes is not None:
            return ROWS_OF_MINUTES
        if self.tokens is not None:
            return math.ceil(self.tokens / (batch_size * length)) * batch_size
        return (self.steps or STEPS) * batch_size

    def steps_for(self, rows: int, tokens: int, batch_size: int) -> int | None:
        """Return the number of steps on rows that have so many tokens together; the last step of each round over them
        has those that are left. `None` where a step has to be timed first.

        >>> [one.steps_for(20, 10_240, 16) for one in (Budget(tokens=100_000), Budget(), Budget(minutes=2))]
        [19, 150, None]
        """
        if self.tokens is None:
            return None if self.minutes is not None else self.steps or STEPS
        rounds, rest = divmod(self.tokens, tokens)
        return rounds * math.ceil(rows / batch_size) + -(-rest * rows // (tokens * batch_size))
