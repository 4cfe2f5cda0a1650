"""The evaluation: run perplexity texts and harness tasks on one model."""

from collections.abc import Iterable
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..calibration.evaluation_texts import local_evaluation_file
from ..calibration.formats import suffix_of
from ..calibration.places import exists, files_of, find, is_pattern
from ..calibration.reading import Reading
from ..calibration.texts import NAMED_DATASETS
from ..errors import CalibrationError, ConfigError
from ..models.fingerprint import model_fingerprint
from ..runtime.files import file_sha256
from ..runtime.turns import one_at_a_time
from ..version import versions
from .local_tasks import local_files
from .perplexity import perplexity
from .protocol import expand_tasks, is_text
from .scores import Score
from .store import MeasurementStore
from .zero_shot import check_task, zero_shot


def check_tasks(tasks: Iterable[str], data_dir: str | Path | None = None) -> tuple[str, ...]:
    """Return the tasks in order, each once, after a check that each can run, before a model is loaded.

    >>> check_tasks(["wikitext2", "wikitext2"])
    ('wikitext2',)
    """
    names = expand_tasks(tasks)
    if not names:
        raise ConfigError("There is nothing to evaluate; name at least one task, such as wikitext2 or paper.")
    folder = None if data_dir is None else Path(data_dir)
    for name in names:
        if not is_text(name):
            check_task(name, folder)
        elif name in NAMED_DATASETS:
            if folder is not None:
                local_evaluation_file(name, folder)
        elif suffix_of(name) and not exists(name) and not is_pattern(name):
            raise CalibrationError(f"There is no file {name!r}; name a file, or one of {', '.join(NAMED_DATASETS)}.")
        else:
            find(name)
    return names


@one_at_a_time
def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Iterable[str] = ("paper",),
    *,
    limit: int | None = None,
    data_dir: str | Path | None = None,
    window_length: int = 2048,
    max_windows: int | None = None,
    bos_per_window: bool = True,
    text_column: str = "text",
    dataset_config: str | None = None,
    dataset_split: str | None = None,
    dataset_revision: str | None = None,
    encoding: str | None = None,
    batch_size: int | None = None,
    progress_dir: str | Path | None = None,
) -> tuple[Score, ...]:
    """Evaluate a model, dense or shortened, by the paper's protocols.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        tasks: Texts to measure perplexity on (`"wikitext2"`, `"c4"`, local files, data sets of the Hub), tasks of
            lm-evaluation-harness by name, and `"paper"` for everything that the paper evaluates: both texts, PIQA,
            WinoGrande, HellaSwag, ARC-easy and ARC-challenge.
        limit: For tasks of the harness: use only this many examples, from the first on.
        data_dir: Folder that holds the data as files, for machines that cannot reach the Hub; see
            `calibration.evaluation_texts.local_evaluation_text` and `local_tasks`.
        window_length: For texts: tokens in a window.
        max_windows: For texts: use only this many windows, from the first on; `None` takes all.
        bos_per_window: For texts: start every window with a BOS token; see `perplexity`.
        text_column: For texts: the field that holds the text of a row.
        dataset_config: For texts: config of a data set of the Hub, where it has several.
        dataset_split: For texts: split of a data set of the Hub, or of a saved `DatasetDict`; `None` is `"test"`.
        dataset_revision: For texts: branch, tag or commit of a data set of the Hub.
        encoding: For texts: encoding of local text, JSONL, CSV and TSV files; `None` is UTF-8.
        batch_size: Windows or requests in one forward pass; `None` takes 1 window, 64 requests on a GPU, 8 on a CPU.
        progress_dir: Folder in which each finished task is stored. A later call with the same arguments reads the
            finished tasks from it and measures only the others.

    Returns:
        The scores, in the order of the tasks; a task of the harness has one score for each metric.

    Raises:
        ConfigError: If a task is unknown, or lm-evaluation-harness is needed and not installed.
        CalibrationError: If data cannot be loaded.
        NonFiniteLossError: If the loss of a window is NaN or infinite.
        OutOfMemoryError: If memory runs out.
        OutputFolderError: If `progress_dir` cannot be written.

    Example:
        ```python
        for score in evaluate(model, tokenizer, ["wikitext2", "piqa"]):
            print(score.task, score.metric, score.value, score.stderr)
        ```
    """
    names = check_tasks(tasks, data_dir)
    folder = None if data_dir is None else Path(data_dir)
    texts: dict[str, Any] = {
        "window_length": window_length,
        "max_windows": max_windows,
        "bos_per_window": bos_per_window,
        "text_column": text_column,
    }
    reading = Reading(dataset_config, dataset_split, dataset_revision, encoding, is_evaluation=True)
    places = {name: find(name) for name in names if is_text(name)}
    reading.check([*places.values()])
    options = {name: texts | reading.options_for(place) for name, place in places.items()}

    def measure(name: str) -> tuple[Score, ...]:
        if not is_text(name):
            return zero_shot(model, tokenizer, name, limit=limit, data_dir=folder, batch_size=batch_size)
        result = perplexity(model, tokenizer, name, batch_size=batch_size or 1, data_dir=folder, **options[name])
        return (result.score(),)

    store = MeasurementStore(progress_dir)
    of_model = {} if progress_dir is None else conditions_of(model, tokenizer)
    scores: list[Score] = []
    for name in names:
        of_task = options.get(name, {"limit": limit})
        conditions = {"task": name, "batch_size": batch_size, **of_task, **of_model}
        if progress_dir is not None:
            conditions["data"] = data_of(name, folder)
        scores += store.get_or_measure(name, conditions, tuple[Score, ...], partial(measure, name))
    return tuple(scores)


def conditions_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return all that decides the scores of a model, as values that JSON can hold."""
    harness = {"lm_eval": version("lm_eval")} if find_spec("lm_eval") else {}
    fingerprint = model_fingerprint(model)
    return {
        "model": fingerprint.pop("weights"),
        **fingerprint,
        "device": model.device.type,
        "tokenizer": [type(tokenizer).__name__, len(tokenizer), tokenizer.chat_template, tokenizer("a b").input_ids],
        "generation": model.generation_config.to_diff_dict() if model.can_generate() else {},
        "versions": versions() | harness,
    }


def data_of(name: str, folder: Path | None) -> list[str]:
    """Return the SHA-256 of each local file that a task is read from; empty for data on the Hub."""
    files: list[Path] = []
    if is_text(name) and name not in NAMED_DATASETS:
        files = [Path(file) for file in files_of(find(name))]
    elif folder is not None:
        files = [local_evaluation_file(name, folder)] if is_text(name) else local_files(name, folder)
    return [file_sha256(file).hex() for file in files]
