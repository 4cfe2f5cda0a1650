"""Perplexity by the paper's protocol."""

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..blocks.forward import vocab_size_of
from ..blocks.losses import perplexity_of
from ..blocks.precision import computes_in_float32, computing_in_float32
from ..calibration.batching import model_losses
from ..calibration.reading import Reading
from ..calibration.sources import load_evaluation
from ..config import PUBLISHED_WINDOW_LENGTH
from ..errors import NonFiniteLossError
from ..models.positions import check_positions, fit_window_length
from ..runtime.logs import hides_bars
from ..runtime.turns import one_at_a_time
from .scores import Score, standard_error


@dataclass(frozen=True)
class Perplexity:
    """A perplexity and the protocol by which it was measured."""

    dataset: str  # data set or file
    perplexity: float
    num_windows: int
    window_length: int  # tokens, BOS included
    bos_per_window: bool
    losses: tuple[float, ...] = field(default=(), repr=False, compare=False)  # mean cross-entropy per window, in nats

    @property
    def protocol(self) -> str:
        """Protocol in words."""
        bos = ", each with a BOS token" if self.bos_per_window else ""
        return f"{self.num_windows:,} windows of {self.window_length:,} tokens{bos}"

    def score(self) -> Score:
        """Return the perplexity as a score; its standard error is that of the mean loss times the perplexity."""
        examples = tuple(self.perplexity * loss for loss in self.losses)
        return Score(
            task=self.dataset,
            metric="perplexity",
            value=self.perplexity,
            protocol=self.protocol,
            higher_is_better=False,
            num_examples=self.num_windows,
            stderr=standard_error(examples),
            examples=examples,
        )


@one_at_a_time
def perplexity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dataset: str = "wikitext2",
    *,
    window_length: int = PUBLISHED_WINDOW_LENGTH,
    max_windows: int | None = None,
    bos_per_window: bool = True,
    text_column: str = "text",
    dataset_config: str | None = None,
    dataset_split: str | None = None,
    dataset_revision: str | None = None,
    encoding: str | None = None,
    batch_size: int = 1,
    data_dir: str | Path | None = None,
) -> Perplexity:
    """Measure a model's perplexity on a text that was not used to prune it.

    The text is tokenised as a whole and cut into windows, which the model reads independently. The perplexity is
    exp(sum over windows of (mean cross-entropy x length) / sum of lengths), as in the official code of arXiv
    2402.09025. A model in half precision on a CPU computes in float32.

    Args:
        model: A causal language model, dense or shortened.
        tokenizer: Its tokenizer.
        dataset: `"wikitext2"` (test split), `"c4"` (1100 documents of the validation split, 256 windows), local files,
            or a data set of the Hub (`"org/name"`), as in `SLEBConfig.dataset`.
        window_length: Tokens in a window. The published 2048 becomes the number of the model's positions where that
            is less; any other length above it is refused.
        max_windows: Use only this many windows, from the first on; `None` takes all.
        bos_per_window: Start every window with a BOS token if the tokenizer puts one in front of a text. `False` is
            the published protocol, but some models (Gemma) have a far higher perplexity without BOS.
        text_column: The field that holds the text of a row.
        dataset_config: Config of a data set of the Hub, where it has several.
        dataset_split: Split of a data set of the Hub, or of a saved `DatasetDict`; `None` is `"test"`.
        dataset_revision: Branch, tag or commit of a data set of the Hub.
        encoding: Encoding of local text, JSONL, CSV and TSV files; `None` is UTF-8.
        batch_size: Windows in one forward pass.
        data_dir: Folder that holds the named data sets as files, for machines that cannot reach the Hub; see
            `calibration.evaluation_texts.local_evaluation_text`.

    Returns:
        The perplexity, its protocol and the loss of each window.

    Raises:
        ConfigError: If the model has fewer positions than a window has tokens.
        CalibrationError: If the data cannot be read or are too short for one window.
        NonFiniteLossError: If the loss of a window is NaN or infinite.

    Example:
        ```python
        result = perplexity(model, tokenizer, "wikitext2")
        print(f"{result.perplexity:.2f} over {result.num_windows} windows")
        ```
    """
    window_length = fit_window_length(window_length, model)
    loaded = load_evaluation(
        dataset,
        tokenizer,
        window_length=window_length,
        max_windows=max_windows,
        bos_per_window=bos_per_window,
        text_column=text_column,
        data_dir=None if data_dir is None else Path(data_dir),
        reading=Reading(dataset_config, dataset_split, dataset_revision, encoding, is_evaluation=True),
    )
    windows = loaded.windows
    windows.check_vocabulary(vocab_size_of(model))
    check_positions(windows.lengths, model)
    precision = computing_in_float32(model) if computes_in_float32(model.device, "auto") else nullcontext()
    with precision, tqdm(total=len(windows), desc="perplexity", unit="window", disable=hides_bars()) as bar:
        losses = model_losses(model, windows, batch_size, bar.update)
    if not losses.isfinite().all():
        window = int((~losses.isfinite()).nonzero()[0])
        raise NonFiniteLossError(
            f"The loss of window {window} of {dataset} is {losses[window].item()}; if the model is in float16, load "
            "it with dtype='bfloat16' or 'float32'."
        )
    return Perplexity(
        dataset=loaded.source,
        perplexity=perplexity_of(losses.double().sum().item(), windows.num_tokens),
        num_windows=len(windows),
        window_length=window_length,
        bos_per_window=loaded.bos_per_window,
        losses=tuple((losses.double() / window_length).tolist()),
    )
