"""Keywords that make a recipe or change one, as those of `generate` do with a `GenerationConfig`."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any

from ..errors import ConfigError
from ..runtime.json import shown
from .amount import AMOUNTS, BELONGS_TO
from .recipe import SLEBConfig


def recipe_of(config: SLEBConfig | None, keywords: Mapping[str, Any], others: Iterable[str] = ()) -> SLEBConfig:
    """Return the recipe that the keywords make, or the given one with these fields changed.
    Another way to say how much goes replaces the recipe's. `others` are known arguments that are no fields.

    >>> recipe_of(SLEBConfig(sparsity=0.2, dataset="c4"), {"num_blocks_to_remove": 6})
    SLEBConfig(num_blocks_to_remove=6, dataset='c4')
    """
    if config is not None and not isinstance(config, SLEBConfig):
        raise ConfigError(f"The recipe must be a SLEBConfig, or keywords such as sparsity=0.2; got {shown(config)}.")
    known = [field.name for field in fields(SLEBConfig)]
    for name in keywords:
        if name not in known:
            near = get_close_matches(name, [*known, *others], n=1)
            remedy = f"did you mean {near[0]}? Change it" if near else f"use the known keywords: {', '.join(known)}"
            raise ConfigError(f"There is no argument {name[:60]!r}, and no such field of a recipe; {remedy}.")
    if config is None:
        return SLEBConfig(**keywords)
    is_other = any(keywords.get(name) is not None and getattr(config, name) is None for name in AMOUNTS)
    forgotten = dict.fromkeys((*AMOUNTS, *BELONGS_TO)) if is_other else {}
    return replace(config, **{**forgotten, **keywords})
