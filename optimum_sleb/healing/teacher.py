"""The dense model as a teacher: at hand, on any device, or as the likeliest tokens that it wrote down before."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel

from ..blocks.forward import evaluating, logits_of, vocab_size_of
from ..blocks.losses import IGNORED, next_tokens
from ..errors import ConfigError
from ..models.fingerprint import weights_hash
from ..models.loading import load_model
from ..runtime.json import shown
from ..runtime.logs import get_logger
from .divergence import divergence, top_divergence
from .packing import batch_of
from .shards import Shards

logger = get_logger(__name__)
_ROWS_PER_SHARD = 64


@dataclass(frozen=True)
class Lesson:
    """Whom a distillation learns from, and how: at hand, or from what the teacher wrote into a folder."""

    teacher: PreTrainedModel | str | Path
    cache: Path | None
    top_k: int
    device: Any  # to load a named teacher on; None: the student's

    @classmethod
    def of(cls, teacher: Any, cache: Any, top_k: int, device: Any) -> "Lesson | None":
        """Return the lesson, `None` without a teacher; refuse what belongs to one."""
        if type(top_k) is not int or top_k < 1:
            raise ConfigError(f"teacher_top_k must be a whole number of at least 1; got {shown(top_k)}.")
        if teacher is not None:
            return cls(teacher, None if cache is None else Path(cache), top_k, device)
        for name, value in (("cache_teacher", cache), ("teacher_device", device)):
            if value is not None:
                raise ConfigError(f"{name} belongs to a teacher; name the dense model (teacher), or leave it out.")
        return None

    @property
    def name(self) -> str:
        """Return the last part of the teacher's name."""
        name = self.teacher.name_or_path if isinstance(self.teacher, PreTrainedModel) else str(self.teacher)
        return Path(name).name or "the dense model"

    @property
    def fingerprint(self) -> str:
        """Return what tells teachers apart: the name, or of a model in memory its weights."""
        return weights_hash(self.teacher) if isinstance(self.teacher, PreTrainedModel) else str(self.teacher)

    def load(self, student: PreTrainedModel) -> PreTrainedModel:
        """Return the teacher, loaded if it is a name; refuse one that predicts other tokens than the student."""
        teacher = self.teacher
        if not isinstance(teacher, PreTrainedModel):
            trusted = {"trust_remote_code": True} if student._auto_class is not None else {}
            teacher = load_model(str(teacher), dtype="auto", device_map=self.device or student.device, **trusted)
        if vocab_size_of(teacher) != vocab_size_of(student):
            raise ConfigError(
                f"The teacher predicts {vocab_size_of(teacher):,} tokens, but the pruned model "
                f"{vocab_size_of(student):,}; name the dense model that it was pruned from (teacher, --teacher)."
            )
        return teacher


def check_lesson(lesson: Lesson | None, method: str, self_data: int | None, cache: Any) -> None:
    """Refuse a distillation, and data of the dense model's own, without a teacher; and a teacher without either."""
    if self_data is not None and (type(self_data) is not int or self_data < 1):
        raise ConfigError(f"self_data must be a whole number of answers, at least 1; got {shown(self_data)}.")
    if lesson is None:
        if method == "distill" or self_data is not None:
            what = "Distillation learns from" if method == "distill" else "self_data are answers of"
            raise ConfigError(f"{what} the dense model; name it (teacher, --teacher).")
        return
    if method != "distill":
        for name, value in (("teacher", lesson if self_data is None else None), ("cache_teacher", cache)):
            if value is not None:
                raise ConfigError(f"{name} belongs to method='distill'; choose that, or leave it out.")


class Teacher(Protocol):
    """What tells how far a student's predictions are from the teacher's."""

    def divergence(self, logits: Tensor, inputs: dict[str, Tensor], counted: Tensor, rows: Tensor) -> Tensor:
        """Return the divergence summed over positions: of the student's logits (positions, vocabulary) at `counted`
        (batch, length), for the inputs of a batch whose rows have the numbers `rows`."""


class LiveTeacher:
    """A teacher that computes its predictions beside the student."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def divergence(self, logits: Tensor, inputs: dict[str, Tensor], counted: Tensor, rows: Tensor) -> Tensor:
        """Run the teacher on its own device; its logits move to the student's in parts."""
        with evaluating(self._model):  # around each batch, for the model is another one's, and may share its modules
            wanted = predictions(self._model, inputs, counted)
        return divergence(logits, wanted)


class WrittenTeacher:
    """A teacher that wrote its likeliest tokens down; it needs no memory while the student learns."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    def divergence(self, logits: Tensor, inputs: dict[str, Tensor], counted: Tensor, rows: Tensor) -> Tensor:
        """Read what the teacher says of these rows."""
        read = [self._shards.row(number) for number in rows.tolist()]
        values, tokens = (torch.cat([row[name] for row in read]) for name in ("log_probabilities", "tokens"))
        return top_divergence(logits, values, tokens)


@torch.no_grad()
def predictions(model: PreTrainedModel, inputs: dict[str, Tensor], counted: Tensor) -> Tensor:
    """Return a model's logits, (positions, vocabulary), at the positions `counted` of a batch, on its own device."""
    more = {name: one for name, one in inputs.items() if name != "input_ids"}
    logits = logits_of(model, inputs["input_ids"], **more)
    return logits[counted.to(logits.device)]


def counted_positions(labels: Tensor) -> Tensor:
    """Return where the next token has a label, of the shape of the labels (batch, length)."""
    return next_tokens(labels) != IGNORED


def written_teacher(
    folder: Path, lesson: Lesson, student: PreTrainedModel, rows: Dataset, fingerprint: str, batch_size: int
) -> WrittenTeacher:
    """Return a teacher from a folder, which is filled first: what is there is not computed again, and a teacher that
    is only named is loaded only if something is missing, and leaves the memory again."""
    top_k = min(lesson.top_k, vocab_size_of(student))
    header = {"teacher": lesson.fingerprint, "data": fingerprint, "top_k": top_k}
    shards = Shards(folder, header, len(rows), _ROWS_PER_SHARD)
    if not shards.missing():
        return WrittenTeacher(shards)
    model = lesson.load(student)

    def likeliest(span: range) -> list[dict[str, Tensor]]:
        found = []
        for start in range(span.start, span.stop, batch_size):
            batch = batch_of([rows[number] for number in range(start, min(start + batch_size, span.stop))])
            counted = counted_positions(batch.pop("labels"))
            batch.pop("rows", None)
            logits = predictions(model, batch, counted)
            tops = [_likeliest(part, top_k) for part in logits.split(counted.sum(dim=1).tolist())]
            found += [{"log_probabilities": values, "tokens": tokens} for values, tokens in tops]
        return found

    with evaluating(model):
        shards.fill(likeliest, lambda done: logger.info(f"The teacher has read {done:,} of {len(rows):,} rows."))
    return WrittenTeacher(shards)


def _likeliest(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return log-probabilities (float16) and tokens (int32) of the likeliest, both (positions, count), on the CPU."""
    values, tokens = logits.topk(count, dim=-1)
    normal = torch.cat([part.float().logsumexp(-1, keepdim=True) for part in logits.split(1024)])
    return (values.float() - normal).half().cpu(), tokens.int().cpu()
