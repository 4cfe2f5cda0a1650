"""Tasks of lm-evaluation-harness, run by the harness on a model in memory."""

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..blocks.forward import evaluating
from ..blocks.precision import computes_in_float32, computing_in_float32
from ..errors import CalibrationError, ConfigError, OutOfMemoryError
from ..runtime.memory import ran_out_of_memory
from ..runtime.turns import one_at_a_time
from ..runtime.undo import undoing
from .local_tasks import local_files, local_note, local_task
from .scores import Score, standard_error


def check_task(task: str, data_dir: Path | None = None) -> None:
    """Check that the harness is installed and knows the task, before a model is loaded; ConfigError if not."""
    if find_spec("lm_eval") is None:
        raise ConfigError(
            f"The task {task!r} is run by lm-evaluation-harness, which is not installed; install it with "
            "`pip install lm-eval`."
        )
    if task not in task_manager().all_tasks:
        raise ConfigError(
            f"{task!r} is no known text (wikitext2, c4), no file, and no task of lm-evaluation-harness; "
            "list its tasks with `lm_eval ls tasks`."
        )
    if data_dir is not None:
        local_files(task, data_dir)


@one_at_a_time
def zero_shot(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: str,
    *,
    limit: int | None = None,
    data_dir: str | Path | None = None,
    batch_size: int | None = None,
) -> tuple[Score, ...]:
    """Run a harness task with the task's own number of shots, and return one score per metric.

    A group gives its own metrics, or those of its tasks. Half precision on a CPU computes in float32. A task that
    generates uses the tokenizer's chat template, if it has one; the paper's tasks, which compare choices, never do.
    """
    folder = None if data_dir is None else Path(data_dir)
    check_task(task, folder)
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    size = batch_size or (64 if model.device.type == "cuda" else 8)
    harness_task = task if folder is None else local_task(task, folder)
    precision = computing_in_float32(model) if computes_in_float32(model.device, "auto") else nullcontext()
    with _quiet(), evaluating(model), precision:
        # A copy, because the harness sets a padding token if there is none.
        lm = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=size)
        try:
            chat = folder is None and tokenizer.chat_template is not None and generates(task)
            results = simple_evaluate(
                lm,
                tasks=[harness_task],
                limit=limit,
                task_manager=task_manager(),
                apply_chat_template=chat,
                fewshot_as_multiturn=chat,
            )
        except RuntimeError as error:
            if not ran_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f"Memory ran out on the task {task!r} with {size} requests at a time; choose fewer (batch_size, "
                "--batch-size)."
            ) from error
        except ImportError as error:
            raise ConfigError(
                f"The task {task!r} needs a package that is not installed ({error}); install it with `pip install "
                f"lm-eval[{task}]`, or by its name."
            ) from error
        except (OSError, ValueError) as error:
            first = (str(error).splitlines() or ["no details"])[0]
            raise CalibrationError(
                f"The task {task!r} cannot be run ({type(error).__name__}: {first}); where the Hub cannot be "
                "reached, take its data from local files (data_dir, --data-dir)."
            ) from error
    note = "chat template" if chat else "" if folder is None else local_note(task, folder)
    return tuple(_scores(task, results, note))


def generates(task: str) -> bool:
    """Tell whether every task of a name is answered by generated text; their data are loaded for that."""
    leaves = task_manager().load([task])["tasks"].values()
    return all(one.get_config("output_type") == "generate_until" for one in leaves)


def _scores(task: str, results: Mapping[str, Any], note: str) -> Iterator[Score]:
    """Yield one score for each metric in the results of the harness."""
    entries = results["results"]
    # A group may have metrics of its own; if not, the scores are those of its tasks.
    for name in [task] if _metrics(entries.get(task, {})) else list(entries):
        samples = results["samples"].get(name, [])
        for metric, key in _metrics(entries[name]).items():
            value = float(entries[name][key])
            stderr = entries[name].get(key.replace(",", "_stderr,"))
            plain, _, filtered = key.partition(",")
            own = [sample for sample in samples if sample.get("filter", filtered) == filtered]
            examples = tuple(float(sample[plain]) for sample in own if isinstance(sample.get(plain), int | float))
            # The metric may not be the mean of its examples, and then they do not give its standard error.
            mean = sum(examples) / len(examples) if examples else None
            if mean is None or abs(mean - value) > 1e-9:
                examples = ()
            yield Score(
                task=name,
                metric=metric,
                value=value,
                protocol=_protocol(results, name, note),
                higher_is_better=results["higher_is_better"].get(name, {}).get(plain) is not False,
                num_examples=_num_examples(results, name, len(own)),
                stderr=float(stderr) if isinstance(stderr, int | float) else standard_error(examples),
                examples=examples,
            )


def _metrics(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return the metrics of a task and their keys in the results, such as `"acc,none"`; where an answer is read from
    generated text in several ways, the way belongs to the name.

    >>> list(_metrics({"exact_match,strict-match": 0.1, "exact_match,flexible-extract": 0.2, "acc,none": 0.3}))
    ['exact_match (strict-match)', 'exact_match (flexible-extract)', 'acc']
    """
    keys = [
        key for key, value in entry.items() if "," in key and "_stderr," not in key and isinstance(value, int | float)
    ]
    metrics = [key.partition(",")[0] for key in keys]
    return {
        metric if metrics.count(metric) == 1 else f"{metric} ({key.partition(',')[2]})": key
        for metric, key in zip(metrics, keys, strict=True)
    }


def _num_examples(results: Mapping[str, Any], name: str, num_samples: int) -> int:
    counted = results.get("n-samples", {}).get(name, {})
    return num_samples or int(counted.get("effective", 0))


def _protocol(results: Mapping[str, Any], name: str, note: str) -> str:
    from importlib.metadata import version

    counts = results.get("n-samples", {}).get(name, {})
    effective, original = counts.get("effective"), counts.get("original")  # None for a group
    words = [f"{results['n-shot'].get(name, 0)} shots"]
    if effective:
        amount = f"{effective:,}" if effective == original else f"first {effective:,} of {original:,}"
        words.insert(0, f"{amount} examples")
    return ", ".join(word for word in [*words, f"lm-evaluation-harness {version('lm_eval')}", note] if word)


@cache
def task_manager() -> Any:
    """The tasks that the harness knows; reading their descriptions takes seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the harness's warning that its model was not loaded by itself."""
    log = logging.getLogger("lm_eval")
    level = log.level
    with undoing(lambda: log.setLevel(level)):
        log.setLevel(logging.ERROR)
        yield
