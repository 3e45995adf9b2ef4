"""Torch's stack of function modes, given back as it was found.

Torch takes a mode off its stack for as long as a function that the mode sees runs. An interrupt that arrives just then
leaves it off: the block of the mode, and the user's own blocks around the call, would end with ``RuntimeError`` and not
with the interrupt.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from attribution.running import torch_internals


def stack() -> list[Any]:
    """The modes that are on in this thread, the latest last."""
    return [*map(torch_internals.function_mode_at, range(torch_internals.function_modes()))]


def put_back(found: Sequence[Any]) -> None:
    """Make the stack what `stack` said. It may run twice, where an interrupt cut it short."""
    if [*map(id, stack())] == [*map(id, found)]:
        return
    while torch_internals.function_modes():
        torch_internals.leave_function_mode()
    for mode in found:
        torch_internals.enter_function_mode(mode)


@contextmanager
def on(mode: AbstractContextManager[Any]) -> Iterator[None]:
    """A mode, or a ``torch.device``, for a block. An interrupt leaves the block as an interrupt."""
    with mode:
        inside = stack()
        try:
            yield
        finally:
            put_back(inside)
