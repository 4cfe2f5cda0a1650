"""Which blocks may go: the two barriers, as published, and the blocks that a recipe names, as one set."""

import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from optimum_sleb import ConfigError, SLEBConfig
from optimum_sleb.config import as_ranges, block_numbers, candidates_of
from optimum_sleb.search.candidate_losses import StepLosses
from optimum_sleb.search.greedy import Refusals, greedy_removals


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("0-3,14", "0-3,14"),
        ("14 0-3", "0-3,14"),
        (" 3, 2,1 ,0,,14", "0-3,14"),
        ([0, 1, 2, 3, 14], "0-3,14"),
        ((14, 3, 2, 1, 0, 0), "0-3,14"),
        (["0-3", 14], "0-3,14"),
        (["0-2,3", "14"], "0-3,14"),
        (range(4), "0-3"),
        ({7}, "7"),
        (np.arange(3), "0-2"),
        (torch.tensor([5, 6]), "5-6"),
        ("007", "7"),
    ],
)
@pytest.mark.parametrize("field", ["protected_blocks", "candidate_blocks"])
def test_the_recipe_keeps_one_form(field: str, given: Any, kept: str) -> None:
    recipe = SLEBConfig(sparsity=0.2, **{field: given})
    assert getattr(recipe, field) == kept
    assert SLEBConfig.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert as_ranges(block_numbers(kept, field)) == kept


def test_both_name_a_block() -> None:
    with pytest.raises(ConfigError, match="both name blocks 2-3; leave them out of one of the two"):
        SLEBConfig(sparsity=0.2, protected_blocks="0-3", candidate_blocks="2-5")


BLOCKS = [0, 1, 3, 4, 6, 7]  # of a model whose blocks 2 and 5 are gone, in an eight-block dense one


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"protected_blocks": "5"}, "protected_blocks='5' names block 5, which the model does not have .any more"),
        ({"candidate_blocks": "2-9"}, "names blocks 2,5,8-9, .* it has the blocks 0-1,3-4,6-7"),
        ({"candidate_blocks": "0-1"}, "names block 0, which early_barrier=1 or latter_barrier=1 protects"),
        ({"candidate_blocks": "6-7"}, "names block 7, which early_barrier"),
        ({"protected_blocks": "1,3", "num_blocks_to_remove": 3}, "remove at most 2 blocks or change protected_blocks"),
        (
            {"candidate_blocks": "1,3", "sparsity": 0.4},
            "removes 3 of 6 blocks and leaves 3, .*remove at most 2 blocks",
        ),
        ({"protected_blocks": "1-1,3-4,6", "max_parameters": 5}, "max_parameters=5 needs at least 1 candidate"),
    ],
)
def test_what_this_model_cannot_do(values: dict[str, Any], message: str) -> None:
    amount = (
        {} if {"num_blocks_to_remove", "sparsity", "max_parameters"} & set(values) else {"num_blocks_to_remove": 1}
    )
    with pytest.raises(ConfigError, match=message):
        SLEBConfig(**values, **amount).num_blocks_to_remove_of(len(BLOCKS), BLOCKS)


def random_losses(alive: Sequence[int], candidates: Sequence[int]) -> StepLosses:
    """A loss for each set of blocks: without sense, but always the same."""
    seeds = [hash((*alive, -1, candidate)) for candidate in candidates]
    return StepLosses(
        {block: torch.tensor([random.Random(seed).random()]) for block, seed in zip(candidates, seeds, strict=True)}
    )


def slow_reference(blocks: Sequence[int], recipe: SLEBConfig, protected: set[int], only: set[int]) -> list[int]:
    """Remove all that may go, and ask at every step which blocks may; the barriers are those of what is left."""
    alive, removed = list(range(len(blocks))), []
    while True:
        first, last = recipe.early_barrier, len(alive) - recipe.latter_barrier
        allowed = [
            index
            for place, index in enumerate(alive)
            if first <= place < last and blocks[index] not in protected and (not only or blocks[index] in only)
        ]
        if not allowed:
            return removed
        sums = random_losses(alive, allowed).sums()
        best = min(allowed, key=lambda index: (sums[index], index))
        alive.remove(best)
        removed.append(best)


@pytest.mark.parametrize("seed", range(150))
def test_greedy_equals_asking_at_every_step(seed: int) -> None:
    dice = random.Random(seed)
    blocks = sorted(dice.sample(range(12), dice.randint(3, 9)))
    early, latter = dice.randint(0, 3), dice.randint(0, 3)
    between = blocks[early : len(blocks) - latter]
    protected = {block for block in blocks if dice.random() < 0.3} if seed % 3 else set()
    only = {block for block in between if block not in protected and dice.random() < 0.7} if seed % 2 else set()
    recipe = SLEBConfig(
        sparsity=0.1,
        early_barrier=early,
        latter_barrier=latter,
        protected_blocks=protected or None,
        candidate_blocks=only or None,
    )
    candidates = candidates_of(recipe, blocks)
    steps = greedy_removals(random_losses, len(blocks), candidates=candidates, refusals=Refusals(lambda gone: None))
    assert [step.block for step in steps] == slow_reference(blocks, recipe, protected, only)
