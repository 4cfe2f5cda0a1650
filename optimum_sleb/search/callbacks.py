"""Callbacks of a search, in the manner of `transformers.TrainerCallback`."""

from dataclasses import dataclass, field

from ..config import SLEBConfig


@dataclass(frozen=True)
class SearchState:
    """How far a search is. Blocks are named by their number in the dense model.

    Attributes:
        num_blocks: Number of blocks of the model before the search.
        metric: What `value` is: `"perplexity"` on the calibration text, `"KL divergence from the dense model"` in nats
            a token, or the function that is the criterion.
        value_before: The metric before the search.
        value: The metric of the model as it is now. Of a function it is the mean loss of a window.
        max_steps: Number of removals that the recipe asks for; `None` where the search decides.
        step: The removal that is being made or was made last, from 1; 0 before the first.
        candidate_losses: Of this step: the loss without each candidate, summed over windows. Candidates that a race
            gave up, and those without a finite loss, are left out.
        set_losses: Of this depth of a search over sets: the loss without each set of blocks, as `candidate_losses`.
        block: The block that this step removed; `None` before it is decided, and in a search over sets.
        removed_blocks: All blocks that the search has removed so far, in order; of a search over sets the best set,
            which need not contain the one of the step before.
        seconds: Seconds since the first step began.
        step_seconds: Seconds that this step took.
        eta: Seconds until the last step ends, as far as this step foretells; `None` where that is not known.
        stopped_early: Whether a callback stopped the search before it had removed what the recipe asks for.

    Example:
        >>> SearchState(num_blocks=30, metric="perplexity", value_before=21.8, value=21.8).step
        0
    """

    num_blocks: int
    metric: str
    value_before: float
    value: float
    max_steps: int | None = None
    step: int = 0
    candidate_losses: dict[int, float] = field(default_factory=dict)
    set_losses: dict[tuple[int, ...], float] = field(default_factory=dict)
    block: int | None = None
    removed_blocks: tuple[int, ...] = ()
    seconds: float = 0.0
    step_seconds: float = 0.0
    eta: float | None = None
    stopped_early: bool = False


@dataclass
class SearchControl:
    """What a callback asks of the search.

    Attributes:
        should_stop: End the search after the step that is being made, as if the recipe asked for no more; the first
            step is always made.

    Example:
        >>> SearchControl().should_stop
        False
    """

    should_stop: bool = False


class SearchCallback:
    """Base class of callbacks of a search; each method is called at one moment, and does nothing here.

    Where several processes search together, only the first one calls them. An error that a callback raises ends
    `prune`: the model is as it was before, and the journal is kept.

    Example:
        ```python
        class StopAt(SearchCallback):
            def on_block_removed(self, config, state, control):
                control.should_stop = state.value > 30

        pruner.prune(SLEBConfig(sparsity=0.3), callbacks=[StopAt()])
        ```
    """

    def on_search_begin(self, config: SLEBConfig, state: SearchState, control: SearchControl) -> None:
        """Do something before the first step, when the loss of the whole model is known.

        Args:
            config: The recipe.
            state: How far the search is.
            control: What the search does next; can be changed.

        Example:
            ```python
            pruner.prune(config, callbacks=[callback])  # calls it
            ```
        """

    def on_candidates_measured(self, config: SLEBConfig, state: SearchState, control: SearchControl) -> None:
        """Do something when the loss without each candidate of a step is known.

        Args:
            config: The recipe.
            state: How far the search is; `candidate_losses` are those of this step.
            control: What the search does next; can be changed.

        Example:
            ```python
            pruner.prune(config, callbacks=[callback])  # calls it
            ```
        """

    def on_block_removed(self, config: SLEBConfig, state: SearchState, control: SearchControl) -> None:
        """Do something when a block has gone; `state.value` is the metric without it, before any compensation.

        Args:
            config: The recipe.
            state: How far the search is.
            control: What the search does next; can be changed.

        Example:
            ```python
            pruner.prune(config, callbacks=[callback])  # calls it
            ```
        """

    def on_compensated(self, config: SLEBConfig, state: SearchState, control: SearchControl) -> None:
        """Do something when the removals so far were compensated: after each step, or once after the last.

        Args:
            config: The recipe.
            state: How far the search is; `value` is the metric of the compensated model.
            control: What the search does next; can be changed.

        Example:
            ```python
            pruner.prune(config, callbacks=[callback])  # calls it
            ```
        """

    def on_search_end(self, config: SLEBConfig, state: SearchState, control: SearchControl) -> None:
        """Do something when it is decided which blocks go; they are taken out of the model afterwards.

        Args:
            config: The recipe.
            state: How far the search went.
            control: Not looked at any more.

        Example:
            ```python
            pruner.prune(config, callbacks=[callback])  # calls it
            ```
        """
