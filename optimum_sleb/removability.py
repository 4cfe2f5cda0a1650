"""What can be said about removing blocks from a model before any search."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from transformers import PreTrainedModel

from .blocks.gates import removable_blocks
from .blocks.shortening import config_changes
from .blocks.stack import DecoderStack


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

    @classmethod
    def of(cls, model: PreTrainedModel, stack: DecoderStack, names: Sequence[int]) -> Self:
        """Find it out, by rebuilding the model without each of its blocks.

        Args:
            model: The model.
            stack: Its decoder blocks.
            names: Their numbers in the dense model.

        Returns:
            What can be removed, what cannot, and why.

        Raises:
            UnsupportedModelError: If no block can be removed.

        Example:
            ```python
            Removability.of(model, stack, range(len(stack))).removable
            ```
        """
        removable, barred = removable_blocks(model, stack, range(len(stack)))
        example = removable[len(removable) // 2]
        kept = [block for block in range(len(stack)) if block != example]
        return cls(
            architecture=type(model).__name__,
            num_blocks=len(stack),
            removable=tuple(names[block] for block in removable),
            barred={names[block]: reason for block, reason in barred.items()},
            example=names[example],
            config_changes=config_changes(model.config, kept),
        )

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
