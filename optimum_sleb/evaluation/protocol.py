"""Texts, tasks and metrics of the paper's evaluation, and the task names of the command line."""

import os
from collections.abc import Iterable, Sequence

from ..calibration.formats import suffix_of
from ..calibration.places import is_pattern
from ..calibration.texts import NAMED_DATASETS
from .scores import Score, mean_score

PAPER = "paper"
TEXTS = ("wikitext2", "c4")
# The metric of each task whose mean the paper reports: accuracy by the log-likelihood of an answer over its length,
# where the harness has it. The paper does not name the metrics; these give the 69.00 of its dense LLaMA-2-7B.
ZERO_SHOT = {
    "piqa": "acc_norm",
    "winogrande": "acc",
    "hellaswag": "acc_norm",
    "arc_easy": "acc_norm",
    "arc_challenge": "acc_norm",
}
MEAN = "mean of the five"


def expand_tasks(tasks: Iterable[str]) -> tuple[str, ...]:
    """Return the tasks in order, each once, with `"paper"` replaced by everything that the paper evaluates.

    >>> expand_tasks(["c4", "paper"])
    ('c4', 'wikitext2', 'piqa', 'winogrande', 'hellaswag', 'arc_easy', 'arc_challenge')
    """
    names = [name for task in tasks for name in ((*TEXTS, *ZERO_SHOT) if task == PAPER else (task,))]
    return tuple(dict.fromkeys(names))


def is_text(task: str) -> bool:
    """Tell whether a task is a text to measure perplexity on; if not, it is a task of the harness. A folder is told
    from a task by a slash.

    >>> is_text("wikitext2"), is_text("piqa")
    (True, False)
    """
    is_file = os.path.isfile(task) or bool(suffix_of(task)) or is_pattern(task)
    return task in NAMED_DATASETS or is_file or "/" in task


def paper_scores(scores: Sequence[Score]) -> tuple[Score, ...]:
    """Return the scores that the paper reports: for its five tasks only the paper's metric, for others all metrics.

    The mean of the five follows if all five are present.
    """
    kept = [score for score in scores if ZERO_SHOT.get(score.task, score.metric) == score.metric]
    five = [score for score in kept if score.task in ZERO_SHOT]
    if len(five) == len(ZERO_SHOT):
        # The protocol names the number of examples, so that a mean with a limit is not read as the full one.
        five.sort(key=lambda score: list(ZERO_SHOT).index(score.task))
        kept.append(mean_score(MEAN, five, f"of {', '.join(f'{one.task} ({one.num_examples:,})' for one in five)}"))
    return tuple(kept)
