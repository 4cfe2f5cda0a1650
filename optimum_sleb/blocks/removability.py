"""Result of `SLEBPruner.check`: which blocks can be removed, before any search."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from transformers import PreTrainedModel

from .shortening import config_changes
from .stack import DecoderStack
from .verify import removable_blocks


@dataclass(frozen=True)
class Removability:
    """The blocks of a model that can each be removed on their own, by their numbers in the dense model."""

    architecture: str  # class of the model
    num_blocks: int
    removable: tuple[int, ...]
    barred: dict[int, str]  # the other blocks, with the reason
    example: int  # the block whose removal `config_changes` shows
    config_changes: dict[str, tuple[Any, Any]]  # config fields that change, with values before and after

    @classmethod
    def of(cls, model: PreTrainedModel, stack: DecoderStack, names: Sequence[int]) -> Self:
        """Rebuild the model without each of its blocks; raise UnsupportedModelError if none can be removed."""
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
        """Return the result as lines of text, without a final line break."""
        lines = [f"{self.architecture}: {len(self.removable)} of {self.num_blocks} blocks can be removed"]
        lines += [f"  not block {block}: {reason}" for block, reason in self.barred.items()]
        lines.append(f"without block {self.example} the config changes:")
        lines += [f"  {field}: {_short(old)} -> {_short(new)}" for field, (old, new) in self.config_changes.items()]
        return "\n".join(lines)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]} ... ({len(value)} entries)"
