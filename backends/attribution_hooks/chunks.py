"""Work in parts that fit into memory."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from attribution import layers
from attribution.attributor import Run
from attribution.lowered.forwards import held
from attribution.running.execution import CPU_WINDOWS, out_of_memory

T = TypeVar("T")


def rows_at_once(run: Run[Any], rows: int) -> int:
    """How many of so many rows, each an example that is covered or otherwise changed, go into one forward."""
    shown = [tensor for name, tensor in run.inputs.values.items() if run.inputs.axes.get(name)]
    size = sum(2 * tensor.nbytes // len(run.inputs) for tensor in shown) + layers.peak_bytes(run.model, run.inputs)
    most = CPU_WINDOWS if run.inputs.device.type == "cpu" else None
    return run.execution.chunk(size, rows, most=most, beside=held(run, rows))


def in_parts(items: Sequence[T], size: int, work: Callable[[Sequence[T]], object], advance: Callable[[], None]) -> int:
    """Hand consecutive parts of ``items`` to ``work``; where memory runs out, parts are half as large from there on.

    Args:
        items: What is to be done.
        size: Items per part, ≥ 1.
        work: Called with each part; a part that failed for lack of memory is given again, in halves.
        advance: Called once for each item done.

    Returns:
        The size of the parts in the end.

    Raises:
        RuntimeError: Memory runs out with a single item (or `MemoryError`), or ``work`` fails for another reason.
    """
    first = 0
    while first < len(items):
        part = items[first : first + size]
        if fits(work, part):
            first += len(part)
            for _ in part:
                advance()
        else:
            size = len(part) // 2
    return size


def fitting(size: int, make: Callable[[int], T]) -> tuple[T, int]:
    """What ``make`` gives for ``size``, or for half of it and so on where memory runs out, and that size.

    Raises:
        RuntimeError: Memory runs out for 1, or ``make`` fails for another reason.
    """
    made: list[T] = []
    while not fits(lambda part: made.append(make(len(part))), range(size)):
        size //= 2
    return made[0], size


def fits(work: Callable[[Sequence[T]], object], part: Sequence[T]) -> bool:
    """Whether there was memory for a part. What a failure's traceback holds is gone when this returns."""
    try:
        work(part)
    except (RuntimeError, MemoryError) as error:
        if len(part) == 1 or not out_of_memory(error):
            raise
        return False
    return True
