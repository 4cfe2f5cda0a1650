"""The compensation of all gaps of a shortened model: every fit is verified on held-back windows."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Self

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..blocks.criterion import CROSS_ENTROPY, Criterion
from ..blocks.kernels import UNCOMPILED, Kernels
from ..blocks.runner import BlockRunner, open_runner
from ..blocks.stack import DecoderStack, probe_ids
from ..calibration.batching import MemoryAttempt, free_cached_memory
from ..calibration.windows import TokenWindows, WindowBatch
from ..config import FEWEST_WINDOWS_TO_COMPENSATE
from ..errors import CalibrationError
from ..report.records import CompensationRecord, CutRecord
from ..runtime.ranks import Ranks
from . import matrices
from .changes import ChangedWeights
from .finding import find_last_site, find_sites
from .moments import WEIGHTINGS, Moments
from .sites import Site
from .walk import Walk

# Every third window is held back, so that each text of a concatenated mixture has some.
_HELD_BACK = FEWEST_WINDOWS_TO_COMPENSATE


class Compensator:
    """Compensation of gaps: the block below each one is fitted to the dense model's residual stream above the gap.

    Only its last linear layer (or norm) changes. `fit` fits all gaps of a set anew, from the bottom up, so that the
    result depends only on the set and the windows. Every third window is held back, so it needs at least three.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        stack: DecoderStack,
        windows: TokenWindows,
        stored_dtype: torch.dtype,
        ranks: Ranks,
        batch_size: int = 1,
        kernels: Kernels = UNCOMPILED,
        criterion: Criterion = CROSS_ENTROPY,
        *,
        every_block: bool = False,
    ) -> None:
        if len(windows) < _HELD_BACK:
            raise CalibrationError(
                f"Compensation fits on some windows and verifies on others, so it needs at least {_HELD_BACK}; the "
                f"calibration data have {len(windows)}. Give more text or shorter windows, or use compensate='no'."
            )
        self._model, self._stack, self._kernels = model, stack, kernels
        self._stored_dtype = stored_dtype  # matrices are rounded to it before they are verified
        self._criterion = criterion  # which verifies the fits
        self._ranks = ranks
        self._every_block = every_block
        numbers = range(len(windows))
        self._fitting = windows.select([number for number in numbers if (number + 1) % _HELD_BACK])
        self._verifying = windows.select([number for number in numbers if (number + 1) % _HELD_BACK == 0])
        self.batch_size = min(batch_size, len(self._fitting))  # larger ones would only be halved in vain
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
        self._changed = ChangedWeights(stack.loader)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.restore()

    def restore(self) -> None:
        """Put the dense model's weights back; leaving the context does the same."""
        self._changed.put_all_back()

    def changed_weights(self) -> dict[str, Tensor]:
        """Return copies of the changed weights by name, in the dtype that they are stored in."""
        return {self._names[id(one)]: one.detach().to(self._stored_dtype, copy=True) for one in self._changed}

    def put(self, weights: dict[str, Tensor]) -> None:
        """Give the model weights that `changed_weights` returned for another set of removals."""
        self.restore()
        for name, value in weights.items():
            self._changed.put(self._model.get_parameter(name), value)

    @torch.no_grad()
    def fit(self, removed: Collection[int]) -> CompensationRecord:
        """Compensate the gaps of a set of removed block indices; the model keeps the new weights."""
        self.restore()  # in every process: all but the first receive the weights below
        record = self._ranks.from_first(lambda: self._fit(set(removed)))
        if self._ranks.size == 1:
            return record
        # Through host memory: tensors on a GPU would arrive on the first process's device.
        changed = self._ranks.from_first(lambda: {name: one.cpu() for name, one in self.changed_weights().items()})
        if not self._ranks.is_first:
            self.put(changed)
        return record

    def _fit(self, removed: set[int]) -> CompensationRecord:
        started = time.perf_counter()
        while True:
            with MemoryAttempt(self.batch_size, self._out_of_memory_message()) as attempt:
                self.restore()  # undo an attempt that ran out of memory
                with open_runner(self._model, self._stack, self._kernels, self._criterion) as runner:
                    cuts = tuple(self._cuts(runner, removed))
            if not attempt.failed:
                break
            free_cached_memory()
            self.batch_size //= 2
        return CompensationRecord(
            num_fit_windows=len(self._fitting),
            num_held_back_windows=len(self._verifying),
            held_back_tokens=self._verifying.num_counted,
            cuts=cuts,
            seconds=time.perf_counter() - started,
        )

    def _out_of_memory_message(self) -> str:
        """Return the error message for one window at a time: all states are held at once."""
        host = "" if self._stack.loader else "leave the model's blocks in host memory (offload='cpu'), "
        return (
            f"Memory ran out while cuts were compensated, with {len(self._fitting) + len(self._verifying)} windows of "
            f"{max(map(len, self._fitting.windows))} tokens that ran one at a time; choose a smaller max_windows or "
            f"window_length, {host}use a larger device, or compensate='no'."
        )

    def _cuts(self, runner: BlockRunner, removed: set[int]) -> Iterator[CutRecord]:
        """Walk up the dense and the shortened model side by side, and compensate each gap."""
        # Blocks that text skips (cross-attention to an image) pass nothing on, so the fit is made in the block below.
        alive = [block for block in sorted(self._stack.forms) if block not in removed]
        walk = self._start_walk(runner)
        walk.loss = walk.loss_after(alive)
        below = range(alive[0] if alive else len(self._stack))
        drifted = False  # from the first gap on, the streams of the two models differ
        if gap := tuple(block for block in below if block in removed):
            walk.step_dense(gap)
            drifted = True
            reason = "no block stands before the gap"
            yield CutRecord(None, gap, walk.loss, walk.loss, reason=reason)
        for position, block in enumerate(alive):
            above = alive[position + 1 :]
            between = range(block + 1, above[0] if above else len(self._stack))
            gap = tuple(one for one in between if one in removed)
            if self._every_block and (gap or drifted):
                yield from self._refit(walk, block, gap, above, drifted=drifted)
            else:
                walk.step_dense([block, *gap])
                if gap:
                    yield self._fit_at_gap(walk, block, gap, above)
            drifted = drifted or bool(gap)
            walk.step(block)

    def _start_walk(self, runner: BlockRunner) -> Walk:
        fitting = [runner.start(batch.ids) for batch in self._batches(self._fitting)]
        held_back = [(runner.start(batch.ids), batch) for batch in self._batches(self._verifying)]
        return Walk(runner, fitting, list(fitting), held_back, runner.start(probe_ids(self._model)))

    def _fit_at_gap(self, walk: Walk, block: int, gap: tuple[int, ...], above: Sequence[int]) -> CutRecord:
        """Fit the last site of the block below a gap to the dense model's stream above it."""
        site = find_last_site(walk.runner.block(block), walk.probe, block)
        if site is None:
            reason = "no module of the block writes straight to the residual stream"
            return CutRecord(block, gap, walk.loss, walk.loss, reason=reason)
        moments = partial(walk.moments, block, site, [stream.hidden for stream in walk.dense_streams], WEIGHTINGS)
        return self._choose(walk, block, gap, above, site, moments, matrices.choose_matrix)

    def _refit(
        self, walk: Walk, block: int, gap: tuple[int, ...], above: Sequence[int], *, drifted: bool
    ) -> Iterator[CutRecord]:
        """Fit every site of a block to the dense model's stream at the same place, the last one behind the gap."""
        sites = find_sites(walk.runner.block(block), walk.probe, block)
        inner = sites[:-1] if drifted else []  # up to the first gap, the streams are the same
        targets = walk.dense_targets(block, inner)
        walk.step_dense([block, *gap])
        if gap and not sites:
            reason = "no module of the block writes straight to the residual stream"
            yield CutRecord(block, gap, walk.loss, walk.loss, reason=reason)
        for number, (site, target) in enumerate(zip(inner, targets, strict=True), start=1):
            moments = partial(walk.moments, block, site, target, matrices.WEIGHTINGS_OF_A_REFIT, sites[:number])
            yield self._choose(walk, block, (), above, site, moments, matrices.choose_refit)
        if sites:
            targets_above = [stream.hidden for stream in walk.dense_streams]
            moments = partial(walk.moments, block, sites[-1], targets_above, matrices.WEIGHTINGS_OF_A_REFIT)
            yield self._choose(walk, block, gap, above, sites[-1], moments, matrices.choose_refit)

    def _choose(
        self,
        walk: Walk,
        block: int,
        gap: tuple[int, ...],
        above: Sequence[int],
        site: Site,
        moments: Callable[[], dict[str, Moments]],
        choose: matrices.ChooseMatrix,
    ) -> CutRecord:
        """Give a site the best matrix that is found; what lowers the loss on no held-back window is not kept."""
        before = walk.loss
        if any(self._uses[id(parameter)] > 1 for parameter in site.module.parameters(recurse=False)):
            reason = f"the weights of {site.path} are used in several places"
            return CutRecord(block, gap, before, before, reason=reason)

        def put_matrix(matrix: Tensor | None) -> None:
            walk.runner.block(block)  # loads the block's weights to the device of the matrix
            self._put_matrix(site, matrix)

        def loss_with(matrix: Tensor) -> float:
            put_matrix(matrix)
            return walk.loss_after([block, *above])

        chosen = choose(moments(), site.matrix(), site.is_linear, before, loss_with)
        put_matrix(chosen.matrix)
        walk.loss = chosen.loss
        return CutRecord(block, gap, before, chosen.loss, chosen.name, chosen.tried, module=site.path)

    def _put_matrix(self, site: Site, matrix: Tensor | None) -> None:
        """Give a site another matrix; `None` restores the dense model's."""
        parameters = dict(site.module.named_parameters(recurse=False))
        for parameter in parameters.values():
            self._changed.put_back(parameter)
        if matrix is None:
            return
        for name, value in site.parameters_for(matrix).items():
            self._changed.put(parameters[name], value.to(self._stored_dtype))

    def _batches(self, windows: TokenWindows) -> list[WindowBatch]:
        return [batch.to(self._model.device) for batch in windows.batches(self.batch_size)]
