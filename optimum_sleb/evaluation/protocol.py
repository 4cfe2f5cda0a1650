"""What the paper evaluates, and how the names on a command line are read."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..calibration.texts import NAMED_DATASETS
from .scores import Score, mean_score

PAPER = "paper"
TEXTS = ("wikitext2", "c4")
# The metric of each task whose mean the paper reports: accuracy by the log-likelihood of an answer over its length,
# where the harness has it. (The paper does not say; only so does its dense LLaMA-2-7B come to the 69.00 it reports.)
ZERO_SHOT = {
    "piqa": "acc_norm",
    "winogrande": "acc",
    "hellaswag": "acc_norm",
    "arc_easy": "acc_norm",
    "arc_challenge": "acc_norm",
}
MEAN = "mean of the five"


def expand(tasks: Iterable[str]) -> tuple[str, ...]:
    """The tasks that are meant, each once.

    Args:
        tasks: Names of data sets, files and tasks; `"paper"` stands for all that the paper evaluates.

    Returns:
        The names, in order.

    Example:
        >>> expand(["c4", "paper"])
        ('c4', 'wikitext2', 'piqa', 'winogrande', 'hellaswag', 'arc_easy', 'arc_challenge')
    """
    names = [name for task in tasks for name in ((*TEXTS, *ZERO_SHOT) if task == PAPER else (task,))]
    return tuple(dict.fromkeys(names))


def is_text(task: str) -> bool:
    """Whether a task is a text to measure perplexity on.

    Args:
        task: Name of a data set, file or task.

    Returns:
        Whether it is a known text or the path of a file; if not, it is a task of the harness.

    Example:
        >>> is_text("wikitext2"), is_text("piqa")
        (True, False)
    """
    return task in NAMED_DATASETS or Path(task).is_file() or Path(task).suffix in (".txt", ".jsonl", ".parquet")


def headline(scores: Sequence[Score]) -> tuple[Score, ...]:
    """The scores that the paper reports, and the mean of the five where all are there.

    Args:
        scores: All scores of one model.

    Returns:
        Of the five tasks the paper's metric, of others all of them; and the mean.

    Example:
        >>> scores = [Score("piqa", metric, 0.5, "", True, 9) for metric in ("acc", "acc_norm")]
        >>> [score.metric for score in headline(scores)]
        ['acc_norm']
    """
    kept = [score for score in scores if ZERO_SHOT.get(score.task, score.metric) == score.metric]
    five = [score for score in kept if score.task in ZERO_SHOT]
    if len(five) == len(ZERO_SHOT):
        # With the numbers of examples, so that the mean of a part is not taken for that of all.
        five.sort(key=lambda score: list(ZERO_SHOT).index(score.task))
        kept.append(mean_score(MEAN, five, f"of {', '.join(f'{one.task} ({one.num_examples:,})' for one in five)}"))
    return tuple(kept)
