"""`heal`: from a shortened model to a good one."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import ConfigError
from ..hub.healed import note_healing
from ..models.checks import check_model
from ..models.positions import most_positions
from ..runtime.turns import one_at_a_time
from .budget import Budget
from .data import load_windows
from .run import Healing, Place
from .self_data import own_windows
from .settings import Loss, Method, Settings, reading_recipe, split_options
from .teacher import Lesson, check_lesson
from .trainer import checked_arguments


@one_at_a_time
def heal(
    pruned: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    method: Method = "lora",
    *,
    data: Any = None,
    teacher: PreTrainedModel | str | Path | None = None,
    steps: int | None = None,
    tokens: int | None = None,
    minutes: float | None = None,
    batch_size: int = 16,
    window_length: int = 512,
    learning_rate: float | None = None,
    rank: int | None = None,
    loss: Loss = "auto",
    packing: bool = True,
    cache_teacher: str | Path | None = None,
    teacher_top_k: int = 64,
    teacher_device: Any = None,
    self_data: int | None = None,
    output_dir: str | Path | None = None,
    resume: bool = False,
    report_to: Any = "none",
    seed: int = 0,
    **options: Any,
) -> PreTrainedModel:
    """Fine-tune a pruned model in place, which gives back most of what the cut cost.

    The training is that of transformers' `Trainer`. How the model was healed is remembered, and `save_healed` writes
    it into report and card. The defaults are what docs/healing.md measured on a model of 135M; for larger models the
    learning rate falls with the root of the size. After an error or Ctrl-C the model is what it was before, to the
    last bit; only where all weights were training they are as trained so far, in the types that they had.

    Args:
        pruned: The pruned model, as `from_pretrained` loads it.
        tokenizer: Its tokenizer; `None` where the data are token ids.
        method: `"lora"` trains an adapter on all linear layers, by PEFT, and merges it; `"full"` trains all weights,
            in float32; `"distill"` as well (or an adapter of `rank`), by the divergence from what `teacher` predicts.
        data: What to train on, as `SLEBPruner.prune` takes calibration data: a name, a path, a mixture, a list, a
            `Dataset`, chats, prompts with completions.
        teacher: For `"distill"` and `self_data`: the dense model, or its name.
        steps: Budget in steps of the optimizer; 150 if no budget is given.
        tokens: Budget in tokens.
        minutes: Budget in minutes of training; a few steps are timed first, and the learning rate falls accordingly.
        batch_size: Rows in a step, over all processes, which must divide it; how many are computed at a time follows
            from the size of the model (`per_device_train_batch_size`).
        window_length: Tokens in a row.
        learning_rate: Its highest value, after a tenth of the steps.
        rank: Rank of the adapter; `None` is 64 for `"lora"`, and no adapter for the others.
        loss: `"auto"` counts labels where the data have any (completions, assistant turns), else every token;
            `"labels"` refuses data without; `"next_token"` counts every token.
        packing: Put several short rows into one (by TRL), where the model tells them apart by their positions;
            otherwise, and with `False`, they are padded.
        cache_teacher: Folder for what the teacher predicts, written in a first pass, after which it leaves the memory;
            one that is filled is read without loading the teacher.
        teacher_top_k: With `cache_teacher`: likeliest tokens that are kept of each prediction.
        teacher_device: Device to load a teacher on that is given by its name; `None` is that of the pruned model.
        self_data: Train on so many answers of the teacher, sampled, to prompts from `data` (what stands before the
            first label, or the first 16 tokens of a text), or to the first token alone where there are none. They are
            kept in `output_dir`, as a `Dataset`.
        output_dir: Folder for checkpoints and logs; `None` keeps none.
        resume: Go on from the last checkpoint in `output_dir`, if there is one.
        report_to: Services that the Trainer reports to, such as `"tensorboard"`.
        seed: Seed of the order of rows, of dropout and of adapters.
        **options: How the data are read (fields of `SLEBConfig` such as `text_column` or `dataset_split`), and fields
            of `TrainingArguments` such as `weight_decay` or `gradient_checkpointing`.

    Returns:
        The same model, trained, with adapters merged, ready to generate.

    Raises:
        ConfigError: If an argument is not allowed, or a package that is needed is not installed.
        CalibrationError: If the data cannot be used.
        UnsupportedModelError: If the model cannot be trained and saved, such as one that is wrapped.
        JournalError: If `output_dir` holds another healing, or `cache_teacher` predictions on other data.

    Example:
        ```python
        model = AutoModelForCausalLM.from_pretrained("smollm2-sleb-20", dtype="auto", device_map="cuda")
        tokenizer = AutoTokenizer.from_pretrained("smollm2-sleb-20")
        heal(model, tokenizer, "lora", data="my_text.jsonl")
        save_healed(model, "smollm2-sleb-20-healed")
        ```
    """
    of_data, of_trainer = split_options(options)
    budget = Budget(steps, tokens, minutes)
    lesson = Lesson.of(teacher, cache_teacher, teacher_top_k, teacher_device)
    check_lesson(lesson, method, self_data, cache_teacher)
    if resume and output_dir is None:
        raise ConfigError("resume=True goes on from a folder; name it (output_dir).")
    if data is None and self_data is None:
        raise ConfigError("Name what to heal on: text or chats of the kind that the model is for (data, --dataset).")
    check_model(pruned)
    length = min(window_length, most_positions(pruned) or window_length)
    settings = Settings.of(pruned, method, rank, learning_rate, batch_size, length, loss, seed)
    of_trainer = {"report_to": report_to, **of_trainer}
    processes = checked_arguments(settings, pruned, of_trainer)
    with TemporaryDirectory() as temporary:
        place = Place(Path(output_dir or temporary), keeps=output_dir is not None, resume=resume)
        recipe = reading_recipe(settings, budget.rows_to_read(batch_size, length), of_data)
        if data is not None:
            loaded = load_windows(data, tokenizer, recipe, loss, by_tokens=packing)
        if self_data is not None and lesson is not None:
            prompts, own = None if data is None else loaded, place.folder / "self-data"
            with processes.main_process_first(local=False):
                loaded = own_windows(own, lesson, pruned, prompts, tokenizer, self_data, length, seed)
        of_loss = lesson if method == "distill" else None
        record = Healing(pruned, settings, budget, loaded, place, of_loss, packing, of_trainer, processes).train()
    note_healing(pruned, record)
    return pruned
