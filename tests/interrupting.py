"""Interrupts, as Ctrl-C makes them, at every line of the package that a run reaches."""

import random
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from transformers import PreTrainedModel

import optimum_sleb

PACKAGE = str(Path(optimum_sleb.__file__).parent)
Line = tuple[str, int]
END: Line = ("the end", 0)


def lines_of(run: Callable[[], object], stop_at: int = 0) -> list[Line]:
    """The lines of the package in the order in which a run reaches them; Ctrl-C comes where it reaches the n-th."""
    lines: list[Line] = []

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            lines.append((frame.f_code.co_filename.removeprefix(PACKAGE), frame.f_lineno))
            if len(lines) == stop_at:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return lines


def interrupt_everywhere(
    run: Callable[[], object], check: Callable[[Line], None], *, all_of_them: bool = True, at_most: int | None = None
) -> int:
    """Interrupt a run at every line that it reaches, or where it does so first and last, or at some of these moments
    by chance; check after each."""
    lines = lines_of(run)
    check(END)
    moments = range(1, len(lines) + 1)
    if not all_of_them:
        first = {line: number for number, line in reversed(list(enumerate(lines, 1)))}
        last = {line: number for number, line in enumerate(lines, 1)}
        moments = sorted({*first.values(), *last.values()})
    if at_most is not None and len(moments) > at_most:
        moments = sorted(random.Random(0).sample(moments, at_most))
    for number in moments:
        with suppress(KeyboardInterrupt):
            lines_of(run, stop_at=number)
        check(lines[number - 1])
    return len(moments)


def hooks_of(module: torch.nn.Module) -> list[int]:
    hooks = [value for name, value in vars(module).items() if name.endswith("_hooks") and isinstance(value, dict)]
    return [id(hook) for of_one_kind in hooks for hook in of_one_kind.values()]


def whole_state(model: PreTrainedModel) -> tuple:
    """What an interrupt may not change: modules and their order, flags, hooks, tensors with their values, configs."""
    modules = [(path, id(module), module.training, hooks_of(module)) for path, module in model.named_modules()]
    tensors = [
        (name, id(one), one.dtype, one.device, one.data_ptr(), one.requires_grad, one.detach().double().sum().item())
        for name, one in [*model.named_parameters(), *model.named_buffers()]
    ]
    return modules, tensors, model.config.to_dict(), model.generation_config.to_dict(), torch.is_grad_enabled()
