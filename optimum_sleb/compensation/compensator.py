"""Compensating the cuts of a model: every fit is verified on windows that it was not fitted on, and kept or not."""

import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..batching import fits
from ..blocks.kernels import PLAIN, Kernels, call_block
from ..blocks.runner import BlockRunner, Stream
from ..blocks.stack import DecoderStack, probe_ids
from ..blocks.standins import hidden_state_of
from ..calibration.windows import TokenWindows, WindowBatch
from ..errors import CalibrationError
from ..ranks import Ranks
from ..records import CompensationRecord, CutRecord
from . import choice
from .changes import ChangedWeights
from .moments import WEIGHTINGS, Moments
from .sites import Site, find_site

# Every third window is held back: also of a mixture of texts that stand one behind the other.
_HELD_BACK = 3


@dataclass
class _Walk:
    """What is carried up the stack, each at the entrance of the same block.

    Attributes:
        runner: Runs the blocks.
        dense: The dense model's state on the fitting windows; it is ahead by a gap where a cut is fitted.
        short: The shortened model's state on them.
        held_back: The shortened model's state on the windows to verify on.
        probe: Its state on a few tokens.
        loss: Its loss on the windows to verify on, with all cuts so far compensated.
    """

    runner: BlockRunner
    dense: list[Stream]
    short: list[Stream]
    held_back: list[tuple[Stream, WindowBatch]]
    probe: Stream
    loss: float = 0.0


class Compensator:
    """Gives the blocks before the gaps of a model other weights, as long as it is open.

    What blocks i+1 .. j-1 would have done is put into block i: its last linear layer is fitted anew, so that its
    output plus the residual stream comes close to what the dense model hands to block j. Where the blocks before were
    compensated already, it is fitted on what they give now. All cuts are fitted anew for each set of blocks, from
    the bottom up, so what comes out depends on the set and the windows alone.

    Args:
        model: The model with all its blocks. Its weights are put back when the compensator is closed.
        stack: Its decoder blocks.
        windows: Calibration windows. Every third is held back, to verify on.
        precision: The precision that the weights are kept in; a fit is judged by what is left of it after rounding.
        batch_size: Windows in one pass, at most. It is halved where memory runs out.
        kernels: How blocks and loss are called.
        ranks: The processes that prune together; the first fits, the others take over what it found.

    Attributes:
        batch_size: Windows in one pass from now on.

    Raises:
        CalibrationError: If there are fewer than three windows.

    Example:
        ```python
        with Compensator(model, stack, windows, torch.bfloat16) as compensator:
            record = compensator.fit({4, 5})
            weights = compensator.folded()
        ```
    """

    def __init__(
        self,
        model: PreTrainedModel,
        stack: DecoderStack,
        windows: TokenWindows,
        precision: torch.dtype,
        batch_size: int = 1,
        kernels: Kernels = PLAIN,
        ranks: Ranks | None = None,
    ) -> None:
        if len(windows) < _HELD_BACK:
            raise CalibrationError(
                f"Compensation fits on some windows and verifies on others, so it needs at least {_HELD_BACK}; the "
                f"calibration data have {len(windows)}. Give more text or shorter windows, or use compensate='no'."
            )
        self._model, self._stack, self._kernels = model, stack, kernels
        self._precision = precision
        self._ranks = ranks or Ranks(together=False)
        numbers = range(len(windows))
        self._fitting = windows.select([number for number in numbers if (number + 1) % _HELD_BACK])
        self._verifying = windows.select([number for number in numbers if (number + 1) % _HELD_BACK == 0])
        self.batch_size = min(batch_size, len(self._fitting))  # more would be halved to no effect
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
        self._changed = ChangedWeights(stack.loader)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.restore()

    def restore(self) -> None:
        """Put the dense model's weights back.

        Example:
            ```python
            compensator.restore()
            ```
        """
        self._changed.put_all_back()

    def folded(self) -> dict[str, Tensor]:
        """The weights that differ from the dense model's.

        Returns:
            Copies by name, in the precision that the weights are kept in.

        Example:
            ```python
            compensator.folded().keys()  # {"model.layers.3.mlp.down_proj.weight"}
            ```
        """
        return {self._names[id(one)]: one.detach().to(self._precision, copy=True) for one in self._changed}

    @torch.no_grad()
    def fit(self, removed: Collection[int]) -> CompensationRecord:
        """Compensate the cuts of a set of removed blocks, and leave the model with the weights that this gives.

        Args:
            removed: Indices of the removed blocks.

        Returns:
            What was tried and kept; blocks are indices.

        Raises:
            OutOfMemoryError: If not even one window at a time fits.

        Example:
            ```python
            compensator.fit({3, 4, 5, 26}).cuts[0].kept  # "refit, 1/|target|, ridge 0.01"
            ```
        """
        self.restore()  # in every process: those that do not fit take over weights below
        record = self._ranks.from_first(lambda: self._fit(set(removed)))
        if self._ranks.size == 1:
            return record
        # Through the host: sent as they are, they would arrive on the first process's device.
        folded = self._ranks.from_first(lambda: {name: value.cpu() for name, value in self.folded().items()})
        for name, value in () if self._ranks.is_first else folded.items():
            self._changed.put(self._model.get_parameter(name), value)
        return record

    def _fit(self, removed: set[int]) -> CompensationRecord:
        started = time.perf_counter()
        cuts: tuple[CutRecord, ...] = ()

        def attempt() -> None:
            nonlocal cuts
            self.restore()  # what an attempt that did not fit left behind
            with BlockRunner(self._model, self._stack, self._kernels) as runner:
                cuts = tuple(self._cuts(runner, removed))

        while not fits(attempt, self.batch_size, self._trouble()):
            self.batch_size //= 2
        return CompensationRecord(
            num_fit_windows=len(self._fitting),
            num_held_back_windows=len(self._verifying),
            held_back_tokens=self._verifying.num_counted,
            cuts=cuts,
            seconds=time.perf_counter() - started,
        )

    def _trouble(self) -> str:
        """What to say where memory runs out with one window at a time: the states of all of them exist at once."""
        host = "" if self._stack.loader else "leave the model's blocks in host memory (offload='cpu'), "
        return (
            f"Memory ran out while cuts were compensated, with {len(self._fitting) + len(self._verifying)} windows of "
            f"{max(map(len, self._fitting.windows))} tokens that ran one at a time; choose a smaller max_windows or "
            f"window_length, {host}use a larger device, or compensate='no'."
        )

    def _cuts(self, runner: BlockRunner, removed: set[int]) -> Iterator[CutRecord]:
        """Walk up the dense and the shortened model side by side, and stop at every gap."""
        # Blocks that text does not run (cross-attention to an image) hand nothing on, so a fit stands before them.
        alive = [block for block in sorted(self._stack.forms) if block not in removed]
        dense = [runner.enter(batch.ids) for batch in self._batches(self._fitting)]
        held_back = [(runner.enter(batch.ids), batch) for batch in self._batches(self._verifying)]
        walk = _Walk(runner, dense, list(dense), held_back, runner.enter(probe_ids(self._model)))
        walk.loss = self._loss(walk, alive)
        below = range(alive[0] if alive else len(self._stack))
        if gap := tuple(block for block in below if block in removed):
            walk.dense = list(runner.run_all(walk.dense, gap))
            reason = "no block stands before the gap"
            yield CutRecord(None, gap, walk.loss, walk.loss, reason=reason)
        for position, block in enumerate(alive):
            above = alive[position + 1 :]
            between = range(block + 1, above[0] if above else len(self._stack))
            gap = tuple(one for one in between if one in removed)
            walk.dense = list(runner.run_all(walk.dense, [block, *gap]))
            if gap:
                yield self._compensate(walk, block, gap, above)
            walk.short = [runner.run(stream, [block]) for stream in walk.short]
            walk.held_back = [(runner.run(stream, [block]), batch) for stream, batch in walk.held_back]
            walk.probe = runner.run(walk.probe, [block])

    def _compensate(self, walk: _Walk, block: int, gap: tuple[int, ...], above: Sequence[int]) -> CutRecord:
        """Compensate one gap; afterwards the block before it has its new weights."""
        before = walk.loss
        site = find_site(walk.runner.block(block), walk.probe, block)
        if site is None:
            reason = "no module of the block writes straight to the residual stream"
            return CutRecord(block, gap, before, before, reason=reason)
        if any(self._uses[id(parameter)] > 1 for parameter in site.module.parameters(recurse=False)):
            reason = f"the weights of {site.path} are used in several places"
            return CutRecord(block, gap, before, before, reason=reason)

        def fold(matrix: Tensor | None) -> None:
            walk.runner.block(block)  # a matrix is made from the weights, so they must lie where it does
            self._fold(site, matrix)

        def loss_with(matrix: Tensor) -> float:
            fold(matrix)
            return self._loss(walk, [block, *above])

        moments = self._moments(walk, block, site)
        chosen = choice.choose_matrix(moments, site.matrix(), site.is_linear, before, loss_with)
        fold(chosen.matrix)
        walk.loss = chosen.loss
        return CutRecord(block, gap, before, chosen.loss, chosen.name, chosen.tried, module=site.path)

    def _moments(self, walk: _Walk, block: int, site: Site) -> dict[str, Moments]:
        """Moments of the site's features in the shortened model, and of what it should give, by weighting."""
        calls: list[tuple[Tensor, Tensor]] = []
        # A copy, for Falcon adds the attention's output to it in place.
        hook = site.module.register_forward_hook(lambda _module, args, output: calls.append((args[0], output.clone())))
        moments: dict[str, Moments] = {}
        try:
            for short, dense in zip(walk.short, walk.dense, strict=True):
                calls.clear()
                arguments = short.arguments_of(block)
                state = hidden_state_of(call_block(walk.runner.block(block), short.hidden, *arguments)).float()
                given, output = calls[-1]
                target = dense.hidden.to(state.device).float()
                wanted = output.view_as(state).float() + (target - state) / site.scale
                features, wanted = site.features(given, output), wanted.flatten(0, -2)
                norms = target.norm(dim=-1)
                first = torch.zeros_like(norms, dtype=torch.bool)
                first[..., 0] = True
                for name, weighting in WEIGHTINGS.items():
                    if name not in moments:
                        moments[name] = Moments.empty(features.shape[1], wanted.shape[1], features.device)
                    moments[name].add(features, wanted, weighting(norms, first).flatten())
        finally:
            hook.remove()
        return moments

    def _fold(self, site: Site, matrix: Tensor | None) -> None:
        """Give a site another matrix, or the dense model's again."""
        parameters = dict(site.module.named_parameters(recurse=False))
        for parameter in parameters.values():
            self._changed.put_back(parameter)
        if matrix is None:
            return
        for name, value in site.fold(matrix).items():
            self._changed.put(parameters[name], value.to(self._precision))

    def _loss(self, walk: _Walk, blocks: Sequence[int]) -> float:
        """Loss on the windows to verify on, if these blocks are still to come."""
        streams = walk.runner.run_all([stream for stream, _ in walk.held_back], blocks)
        total = 0.0
        for stream, (_, batch) in zip(streams, walk.held_back, strict=True):
            total += walk.runner.losses(stream.hidden, batch.ids, batch.targets).double().sum().item()
        return total

    def _batches(self, windows: TokenWindows) -> list[WindowBatch]:
        return [batch.to(self._model.device) for batch in windows.batches(self.batch_size)]
