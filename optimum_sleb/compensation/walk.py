"""The pass up the stack, with the dense and the shortened model side by side, and the moments of a site on it."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..blocks.kernels import call_block
from ..blocks.runner import BlockRunner, Stream
from ..blocks.standins import hidden_state_of
from ..blocks.state import removing_hooks
from ..calibration.windows import WindowBatch
from .moments import WEIGHTINGS, Moments
from .sites import Site

_Calls = dict[nn.Module, tuple[Tensor, Tensor]]  # input and output of each module


@dataclass
class Walk:
    """State of the pass; all streams stand at the entrance of the same decoder block."""

    runner: BlockRunner
    dense_streams: list[Stream]  # dense model on the fitting windows; one gap ahead while a block is fitted
    short_streams: list[Stream]  # shortened model on the fitting windows
    held_back: list[tuple[Stream, WindowBatch]]  # shortened model on the held-back windows
    probe: Stream  # shortened model on a few tokens
    loss: float = 0.0  # on the held-back windows, with all that is fitted so far

    def step(self, block: int) -> None:
        """Run a block on the streams of the shortened model."""
        self.short_streams = [self.runner.run(stream, [block]) for stream in self.short_streams]
        self.held_back = [(self.runner.run(stream, [block]), batch) for stream, batch in self.held_back]
        self.probe = self.runner.run(self.probe, [block])

    def step_dense(self, blocks: Sequence[int]) -> None:
        """Run blocks on the streams of the dense model."""
        self.dense_streams = list(self.runner.run_all(self.dense_streams, blocks))

    def loss_after(self, blocks: Sequence[int]) -> float:
        """Return the loss on the held-back windows after these blocks are run, in nats, summed over windows."""
        streams = self.runner.run_all([stream for stream, _ in self.held_back], blocks)
        total = 0.0
        for stream, (_, batch) in zip(streams, self.held_back, strict=True):
            total += self.runner.losses(stream.hidden, batch).double().sum().item()
        return total

    def dense_targets(self, block: int, sites: Sequence[Site]) -> list[list[Tensor]]:
        """Return the dense model's stream behind each of a block's sites, (batch, length, width) in the model's
        precision, by batch; the block must still have the dense model's weights."""
        targets: list[list[Tensor]] = [[] for _ in sites]
        for stream in self.dense_streams if sites else ():
            calls, _ = self._call(block, stream, sites)
            for number, of_site in enumerate(targets, start=1):
                of_site.append(_stream_behind(sites[:number], stream, calls).to(stream.hidden.dtype))
        return targets

    def moments(
        self,
        block: int,
        site: Site,
        targets: Sequence[Tensor],  # the stream that is wanted behind the site, by batch
        weightings: Collection[str],
        writers: Sequence[Site] = (),  # sites whose outputs make up the stream there; empty: it is the block's output
    ) -> dict[str, Moments]:
        """Return the moments of a site's features and desired output in the shortened model, by weighting."""
        moments: dict[str, Moments] = {}
        for short, wanted in zip(self.short_streams, targets, strict=True):
            calls, state = self._call(block, short, [site, *writers])
            state = _stream_behind(writers, short, calls) if writers else state.float()
            inputs, output = calls[site.module]
            target = wanted.to(state.device).float()
            features = site.features(inputs, output)
            desired = (output.view_as(state).float() + (target - state) / site.scale).flatten(0, -2)
            norms = target.norm(dim=-1)
            first = torch.zeros_like(norms, dtype=torch.bool)
            first[..., 0] = True
            for name in weightings:
                if name not in moments:
                    moments[name] = Moments.empty(features.shape[1], desired.shape[1], features.device)
                moments[name].add(features, desired, WEIGHTINGS[name](norms, first).flatten())
        return moments

    def _call(self, block: int, stream: Stream, sites: Sequence[Site]) -> tuple[_Calls, Tensor]:
        """Run a block; return what its sites were given and gave in their last call, and the block's hidden state."""
        with _watched(sites) as calls:
            output = call_block(self.runner.block(block), stream.hidden, *stream.arguments_of(block))
        return calls, hidden_state_of(output)


def _stream_behind(writers: Sequence[Site], stream: Stream, calls: _Calls) -> Tensor:
    """Return the stream behind the last of some sites: a block's input, and what they add; float32."""
    state = stream.hidden.float()
    for site in writers:
        state = state + site.scale * calls[site.module][1].view_as(state).float()
    return state


@contextmanager
def _watched(sites: Sequence[Site]) -> Iterator[_Calls]:
    calls: _Calls = {}

    def keep(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        # A copy, because Falcon adds the attention's output to this tensor in place.
        calls[module] = (args[0], output.clone())

    with removing_hooks() as hooks:
        for module in {site.module for site in sites}:
            hooks.append(module.register_forward_hook(keep))
        yield calls
