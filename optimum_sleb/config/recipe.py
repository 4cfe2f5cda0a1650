"""The recipe of a pruning run: how many blocks are removed, and on which data they are chosen."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, Literal, Self, get_type_hints

from ..errors import ConfigError
from ..runtime.json import parse
from .amount import check_amount, checked_amount
from .bounds import MOST, PUBLISHED_WINDOW_LENGTH
from .criterion import check_criterion
from .limits import canonical_blocks, check_not_both
from .presets import PRESETS
from .quantity import canonical_quantity
from .sets import check_compensate
from .stored import StoredRecipe


@dataclass(frozen=True, repr=False)
class SLEBConfig(StoredRecipe):
    """Everything needed to repeat a run, apart from the model. The defaults are those of the published procedure.

    Say how much to remove with exactly one of `sparsity`, `num_blocks_to_remove`, `max_perplexity_increase`,
    `max_parameters`, `max_memory` and `min_speedup`; the last three stop the search where they are met.

    Args:
        sparsity: Share of the model's decoder blocks to remove, in (0, 1); ceil(sparsity x blocks) are removed.
        num_blocks_to_remove: Number of decoder blocks to remove.
        max_perplexity_increase: Quality budget. Blocks are removed until the next removal would raise the perplexity
            on the calibration text by more than this share over its value before the run: 0.1 allows 10 %. With
            `compensate="during"` a removal is judged after it is compensated, with `"after"` before.
        max_parameters: The most parameters that may be left, a number or a text such as `"6B"` or `"113M"`.
        max_memory: The most bytes for the weights and the cache of generation, a number or a text such as `"16GB"` or
            `"16GiB"`, in the model's own precision.
        context_length: With `max_memory`: tokens of each sequence in the cache; `None` is 2048, or as many as the
            model has positions for.
        num_sequences: With `max_memory`: sequences in the cache; `None` is 1.
        min_speedup: The least factor by which the model gets faster, by the time that its blocks take on the device of
            the search (docs/benchmark.md).
        speedup_of: With `min_speedup`: reading a `"prompt"` or `"generation"`; `None` is generation.
        dataset: Calibration data: `"wikitext2"`, `"c4"`, a local file, pattern or folder, a data set of the Hub
            (`"org/name"`), or a mixture of these such as `"wikitext2+c4"` or `"c4:0.8+chat.jsonl:0.2"`. Pass data in
            memory to `SLEBPruner.prune(..., calibration=...)` instead.
        dataset_config: Config of a data set of the Hub, where it has several.
        dataset_split: Split of a data set of the Hub, or of a saved `DatasetDict`; `None` is `"train"`.
        dataset_revision: Branch, tag or commit of a data set of the Hub.
        encoding: Encoding of local text, JSONL, CSV and TSV files; `None` is UTF-8, with or without a byte order mark.
        shuffle_buffer: Rows among which the next one is drawn, by `seed`; 0 keeps their order. `None` is 1000 for data
            sets of the Hub, 0 for local rows.
        text_column: The column that holds the text of rows, or chats. With the default, columns of other kinds are
            found by themselves and go first: `input_ids`, `prompt` and `completion`, `messages`.
        document_separator: What stands between two documents of text: `"eos"` for the tokenizer's EOS token, each
            document then tokenised on its own, or a text. `None` is a blank line, and C4's own where that is read.
        num_samples: Number of documents drawn from `"wikitext2"` or `"c4"`. Other data are read as far as needed.
        window_length: Length of a token window, in tokens. The published 2048 becomes the number of the model's
            positions where that is less (GPT-2: 1024), as the report says; any other length above it is refused.
        max_windows: The most token windows to use, the first ones; the parts of a mixture share them, by their weights
            or equally. `None` uses all.
        bos_per_window: Start every window with a BOS token, if the tokenizer puts one in front of a text. `False` is
            the published protocol: only the first window starts with BOS.
        seed: Seed of the shuffle.
        loss: The loss to measure: `"next_token"` on every token, as published; or on the `"labels"` alone: those of
            tokenised data, completions, or the assistant's turns of chats. So blocks are chosen for a task.
        criterion: What takes the place of cross-entropy: `"kl"`, the divergence of the shortened model's predictions
            from the dense model's; or a function of one's own, `"org.module:function"`, from the logits and a batch of
            windows to a loss of each window, of which the sum is lowered.
        early_barrier: Number of blocks at the start of the (remaining) stack that are never candidates.
        latter_barrier: Number of blocks at the end of the (remaining) stack that are never candidates.
        protected_blocks: Blocks that are never candidates, by their numbers in the dense model: `"0-3,14"`, or a
            sequence such as `[0, 1, 2, 3, 14]`. The recipe keeps the text.
        candidate_blocks: The only blocks that are candidates, given in the same way; `None` is all.
        compensate: Compensation of removed blocks by linear maps, folded into the blocks before the gaps: `"no"`, as
            published; `"after"` the search; or `"during"` it, so that every block is chosen on the compensated model.
            `"every-block"` is during the search as well, and fits all blocks above a gap too. A search over sets
            compensates at its end.
        search_space: `"runs"` searches over sets of blocks: at each depth the best sets so far with one block more,
            and every run of neighbours; each depth has its own best set. `None` removes one block after the other, as
            published. With `compensate` the sets that lead at the last depth are all compensated, and the loss on the
            windows that are held back from the fit decides.
        beam_width: Number of sets that go on to the next depth; `None` is 4 with `search_space="runs"`, else 1.
        search: `"exact"` shares the work between candidates; `"reference"` runs the whole model for each of them, as
            published; both measure the same losses. `"racing"` gives up candidates that are clearly worse. `"auto"`
            races where there are 32 windows or more, and is exact with fewer.
        racing_confidence: In a race, a candidate is given up when its loss is so many standard errors behind the
            best one.
        search_dtype: Precision of the search: `"float32"`, the `"model"`'s own, or `"auto"`: the model's own, but
            float32 for a model in half precision on a CPU, where half precision is several times slower. The model's
            weights keep their own precision and values.
        batch_size: Token windows in one forward pass; `None` takes as many as keep the device busy and fit its memory.
        compile: Use of `torch.compile` to fuse the blocks and the loss: `"auto"` where the search is long enough for
            that to pay, `"always"` or `"never"`.

    Raises:
        ConfigError: If a value has the wrong type or is out of range, if blocks are both protected and candidates, or
            if not exactly one amount is given.

    Example:
        >>> config = SLEBConfig(sparsity=0.2)
        >>> config.num_blocks_to_remove_of(32)
        7
    """

    sparsity: float | None = None
    num_blocks_to_remove: int | None = None
    max_perplexity_increase: float | None = None
    max_parameters: int | str | None = None
    max_memory: int | str | None = None
    context_length: int | None = None
    num_sequences: int | None = None
    min_speedup: float | None = None
    speedup_of: Literal["prompt", "generation"] | None = None
    dataset: str = "wikitext2"
    dataset_config: str | None = None
    dataset_split: str | None = None
    dataset_revision: str | None = None
    encoding: str | None = None
    shuffle_buffer: int | None = None
    text_column: str = "text"
    document_separator: str | None = None
    num_samples: int = 128
    window_length: int = PUBLISHED_WINDOW_LENGTH
    max_windows: int | None = 128
    bos_per_window: bool = True
    seed: int = 0
    loss: Literal["next_token", "labels"] = "next_token"
    criterion: str | None = None
    early_barrier: int = 1
    latter_barrier: int = 1
    protected_blocks: str | Sequence[int] | None = None
    candidate_blocks: str | Sequence[int] | None = None
    compensate: Literal["no", "after", "during", "every-block"] = "no"
    search_space: Literal["runs"] | None = None
    beam_width: int | None = None
    search: Literal["exact", "racing", "reference", "auto"] = "exact"
    racing_confidence: float = 3.5
    search_dtype: Literal["auto", "float32", "model"] = "auto"
    batch_size: int | None = None
    compile: Literal["auto", "always", "never"] = "auto"

    def __post_init__(self) -> None:
        for name in ("protected_blocks", "candidate_blocks"):
            object.__setattr__(self, name, canonical_blocks(getattr(self, name), name))
        for name in ("max_parameters", "max_memory"):
            object.__setattr__(self, name, canonical_quantity(getattr(self, name)))
        self._check_types()
        check_amount(self)
        check_not_both(self.protected_blocks, self.candidate_blocks)
        if not (self.racing_confidence > 0 and isfinite(self.racing_confidence)):
            raise ConfigError(f"racing_confidence must be a positive number, got {self.racing_confidence}.")
        check_criterion(self.criterion, self.max_perplexity_increase)
        check_compensate(self)
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= MOST:
                bound = f"at least {least}" if value < least else f"at most {MOST:,}"
                raise ConfigError(f"{name} must be {bound}, got {value}.")

    def _check_types(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            try:
                parse(hint, getattr(self, name), name)
            except ValueError as error:
                raise ConfigError(str(error)) from None

    def num_blocks_to_remove_of(self, num_blocks: int, blocks: Sequence[int] | None = None) -> int | None:
        """Return how many of a model's blocks this recipe removes.

        Args:
            num_blocks: Number of decoder blocks of the model.
            blocks: Their numbers in the dense model; `None` for a dense model.

        Returns:
            The number of blocks to remove, or `None` if the search decides, by a perplexity budget or another target.

        Raises:
            ConfigError: If fewer blocks may go, by the barriers and the protected and candidate blocks, or if one of
                these is not in the model.

        Example:
            >>> SLEBConfig(sparsity=0.1).num_blocks_to_remove_of(30)
            3
        """
        return checked_amount(self, range(num_blocks) if blocks is None else blocks)

    @classmethod
    def best(cls, **fields: Any) -> Self:
        """Return a recipe for the best model without training, instead of the published procedure.

        Blocks are judged by the KL divergence from the dense model on WikiText-2 and C4, runs of neighbours compete
        with single blocks, candidates that are surely behind are given up, and all kept blocks are compensated
        (docs/quality.md has what each part brings).

        Args:
            **fields: How much to remove, as in `SLEBConfig`, and any other field, in place of this recipe's.

        Returns:
            The recipe.

        Raises:
            ConfigError: If a value is not allowed, or not exactly one amount is given.

        Example:
            >>> SLEBConfig.best(sparsity=0.2, dataset="c4").criterion
            'kl'
        """
        return cls(**{**PRESETS["best"], **fields})

    def __repr__(self) -> str:
        given = (field.name for field in fields(self) if getattr(self, field.name) != field.default)
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in given)})"


_LEAST = {
    "num_blocks_to_remove": 1,
    "num_samples": 1,
    "shuffle_buffer": 0,
    "context_length": 1,
    "num_sequences": 1,
    "window_length": 2,
    "max_windows": 1,
    "seed": 0,
    "beam_width": 1,
    "early_barrier": 0,
    "latter_barrier": 0,
    "batch_size": 1,
}
