"""What an accelerator is asked for besides arithmetic: each operation is a launch, which costs the host time.

On a CPU a launch is a call of a function and costs nothing worth counting.
"""

from collections.abc import Sequence

import torch

from attribution_hooks.incremental.graph import Program
from attribution_hooks.incremental.numbers import Readings
from attribution_hooks.incremental.plan import Plan

SECONDS = 2.5e-5
"""Of the host, for one launch by a module or a step from Python. Measured beside two H100s: 20 and 34 µs in a ResNet's
forward, 25 to 40 µs in the engine (7.5 µs for a bare addition in place)."""

MACS_PER_SECOND = 1.5e13
"""Of convolutions in float32. Measured on an H100, 121 windows of 224 px: ResNet-18 and -50 1.0e13, VGG16 and 16 images
1.8e13."""

FASTER = {torch.float16: 2.0, torch.bfloat16: 3.0}
"""How many times as many with TF32, which counts as float16, and with bfloat16. Measured: TF32 1.4 to 2.7, bfloat16 2.3
where full forwards gain more than small tiles."""

_GATHER, _STORE, _AREA, _EXIT = 3, 1, 2, 2
"""Launches for one rectangle (two for its places, one to read), one stored tile, one clean map, one whole map that a
tile is written into."""

_BATCH, _PROOF = 15, 100
"""Launches around each forward of the rest, for the differences; and of a proof, beside its forwards."""


def dense(program: Program, plan: Plan, images: int, chunk: int) -> int:
    """Launches of one full forward for every ``chunk`` windows, about."""
    return -(-len(plan.lattice) * images // chunk) * (program.nodes + _BATCH)


def incremental(program: Program, plan: Plan, readings: Sequence[Readings], images: int, size: int) -> int:
    """Launches of the engine with ``size`` windows at once, its proof included, about."""
    steps, folded = len(program.steps), max(0, program.nodes - len(program.steps) - len(program.rest))
    once = 2 * (steps + len(program.rest)) + folded + 2 * program.nodes + _PROOF
    once += _AREA * len({(reading.source, reading.area) for group in readings for reading in group.all})
    batches = -(-len(plan.lattice) * images // size)
    runs = sum(
        -(-len(group.group.windows) * images // size)
        * (steps + _GATHER * len(group.all) + _STORE * len(group.stored) + _EXIT * len(program.exits))
        for group in readings
    )
    return once + runs + batches * (len(program.rest) + _BATCH)


def too_many(
    program: Program,
    plan: Plan,
    readings: Sequence[Readings],
    *,
    images: int,
    size: int,
    chunk: int,
    dtype: torch.dtype,
) -> str | None:
    """Why the engine's launches cost an accelerator more than its arithmetic saves; ``None`` where they do not.

    Args:
        program: Of the model.
        plan: Of the lattice.
        readings: Of the plan's groups.
        images: How many there are.
        size: Windows at once in the engine.
        chunk: Covered images per full forward.
        dtype: In which products are taken, TF32 as float16.
    """
    per_image = plan.dense // len(plan.lattice)
    saved = (plan.dense - plan.executed - per_image) * images - 2 * per_image  # clean maps; what a proof asks
    speed = MACS_PER_SECOND * FASTER.get(dtype, 1.0)
    more = incremental(program, plan, readings, images, size) - dense(program, plan, images, chunk)
    if saved / speed > more * SECONDS:
        return None
    return (
        f"on this device {more} more launches would cost about {more * SECONDS * 1e3:.1f} ms, and save "
        f"{max(saved, 0) / speed * 1e3:.1f} ms of arithmetic; Execution(incremental='always') takes tiles all the same"
    )
