"""A whole search in one call."""

from collections.abc import Sequence

from transformers import PreTrainedModel

from optimum_sleb import SLEBConfig
from optimum_sleb.blocks.criterion import CROSS_ENTROPY, Criterion
from optimum_sleb.blocks.stack import DecoderStack
from optimum_sleb.calibration.windows import TokenWindows
from optimum_sleb.runtime.ranks import Ranks
from optimum_sleb.search.result import SearchResult
from optimum_sleb.search.run import open_search


def run_search(
    model: PreTrainedModel,
    stack: DecoderStack,
    windows: TokenWindows,
    candidates: Sequence[int],
    config: SLEBConfig,
    criterion: Criterion = CROSS_ENTROPY,
) -> SearchResult:
    with open_search(model, stack, windows, candidates, config, criterion, ranks=Ranks.alone()) as search:
        return list(search.removals())[-1]
