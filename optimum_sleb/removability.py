"""What can be said about removing blocks from a model before any search."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Removability:
    """Which blocks a model lets go, each on its own. Blocks are named by their number in the dense model.

    Attributes:
        architecture: Class of the model.
        num_blocks: Number of blocks that it has.
        removable: Blocks that can be removed.
        barred: The others, and why not.
        example: The block whose removal `config_changes` shows.
        config_changes: Fields of the config that change when it goes, with their values before and after.

    Example:
        ```python
        print(pruner.check().summary())
        ```
    """

    architecture: str
    num_blocks: int
    removable: tuple[int, ...]
    barred: dict[int, str]
    example: int
    config_changes: dict[str, tuple[Any, Any]]

    def summary(self) -> str:
        """The same in words.

        Returns:
            Lines of text, without a final line break.

        Example:
            ```python
            print(pruner.check().summary())
            ```
        """
        lines = [f"{self.architecture}: {len(self.removable)} of {self.num_blocks} blocks can be removed"]
        lines += [f"  not block {block}: {reason}" for block, reason in self.barred.items()]
        lines.append(f"without block {self.example} the config changes:")
        lines += [f"  {field}: {_short(old)} -> {_short(new)}" for field, (old, new) in self.config_changes.items()]
        return "\n".join(lines)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]} ... ({len(value)} entries)"
