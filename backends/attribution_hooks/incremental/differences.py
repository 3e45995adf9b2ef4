"""Each window by what it changes: the engine's run over all windows of a call."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attribution.attributor import Run
from attribution.lowered.products import held
from attribution.running.precision import tf32
from attribution.techniques.perturbation.lattice import Lattice
from attribution_hooks.chunks import fitting, in_parts
from attribution_hooks.covers import Covering
from attribution_hooks.incremental import launches
from attribution_hooks.incremental.engine import Engine
from attribution_hooks.incremental.graph import Known, Program, Untraceable, build
from attribution_hooks.incremental.numbers import Readings
from attribution_hooks.incremental.plan import Group, Plan
from attribution_hooks.incremental.proof import Proof
from attribution_hooks.incremental.sink import Sink

LEAST_GAIN = 1.15
"""How many times fewer multiply-accumulates than dense the plan must promise."""

CUDA_WINDOWS = 1024
"""Windows at once on CUDA, where large batches fill the device; not tuned yet."""

WINDOWS = 32
"""Windows at once on a CPU: fewer pay too often for each layer's set-up, more gain nothing (``docs/benchmarks.md``)."""

ROWS = 128
"""Windows that large linear layers on a CPU are given at once: their weights are read once for all of these."""

Pair = tuple[int, int]


def differences(
    run: Run[Any],
    lattice: Lattice,
    covers: Covering,
    logits: Tensor,
    known: Known,
    chunk: int,
) -> Tensor:
    """score(x) − score(x with window w covered): (windows, N, T).

    The model is traced in every call, since numbers outside of it are read while tracing; and the engine is believed
    in every call only after `Proof`.

    Args:
        run: Its inputs are (N, C, H, W), its score is settled.
        lattice: The windows.
        covers: Of the inputs and the lattice.
        logits: (N, K), the matrix of scores of the model itself for the inputs; the engine's must be the same.
        known: What earlier calls found out about the model.
        chunk: Whole images per forward of the model.

    Raises:
        Untraceable: The model cannot be taken apart, or gains too little.
    """
    inputs, budget = run.inputs.tensor, run.execution.budget // 2
    question = (inputs.shape[1:], lattice)
    weighed = (*question, len(inputs), run.execution, precision := tf32(logits) or logits.dtype)
    always = run.execution.incremental == "always"
    if (reason := known.reason(question) or (None if always else known.reason(weighed))) is not None:
        raise Untraceable(reason)
    products = held(run.model.modules()) <= budget // 4
    program, maps, output = build(run.model, known.traced(run.model), inputs[:1], products=products)
    plan, readings = known.planned(program, lattice)
    at_once = max(1, budget // (2 * sum(m.numel() * m.element_size() for m in maps)))
    most = WINDOWS if inputs.device.type == "cpu" else CUDA_WINDOWS
    size = run.execution.batch_size or max(1, min(most, budget // max(_tile_bytes(plan, maps), 1)))
    if not always and (reason := _dull(run, program, plan, readings, size, chunk, precision)) is not None:
        known.dull[weighed] = reason
        raise Untraceable(reason)
    waiting = _waiting(program, maps, budget) if inputs.device.type == "cpu" else 0
    if len(inputs) > 1:
        maps, output = [], None  # of one image; they would lie beside the proof's forwards
    proof = Proof.of(run, lattice, covers, logits, chunk)
    parts: list[Tensor] = []
    used, macs = size, 0
    with run.progress(len(lattice) * len(inputs), "window") as advance:
        for first in range(0, len(inputs), at_once):
            part = slice(first, min(first + at_once, len(inputs)))
            if len(inputs) > 1:
                maps, output = program.clean(inputs[part])
            clean = run.matrix(output, torch.arange(part.start, part.stop, device=inputs.device))
            checks = {CLEAN: proof.clean_agrees(clean, part)}
            if inputs.device.type == "cpu":
                _settle(checks, known, question)  # nothing waits for it there
            engine, size = fitting(size, partial(Engine, program, plan, readings, maps, covers=covers))
            used, maps = min(used, size), []
            pairs = [(window, image - first) for window, image in (proof.pairs[row] for row in proof.rows(part))]
            sink = Sink(run, program, clean, part, len(lattice), max(used, waiting), pairs)
            for group in plan.groups:
                used = _group(engine, group, sink, used, advance)
            sink.flush()
            checks |= _checks(run, covers, proof, sink, clean, part, chunk, strongest=first == 0)
            _settle(checks, known, question)
            macs += sink.macs
            parts.append(sink.deltas.view(len(lattice), -1, sink.target.shape[1]))
    run.note("engine", "incremental")
    run.note("windows_per_forward", used)
    run.note("macs_dense", plan.dense * len(inputs))
    run.note("macs", macs)
    run.note("macs_floor", plan.floor * len(inputs))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _dull(
    run: Run[Any],
    program: Program,
    plan: Plan,
    readings: Sequence[Readings],
    size: int,
    chunk: int,
    precision: torch.dtype,
) -> str | None:
    """Why tiles would not be faster than full forwards; ``None`` where they promise to be."""
    gain = plan.dense / max(plan.executed + plan.dense // len(plan.lattice), 1)
    if gain < LEAST_GAIN:
        return f"tiles end at {program.stopped_by} and would save too little ({gain:.2f}x)"
    if run.inputs.device.type == "cpu":
        return None
    images = len(run.inputs)
    return launches.too_many(program, plan, readings, images=images, size=size, chunk=chunk, dtype=precision)


CLEAN = "the traced model gives other logits than the model"
COVERED = "the traced model gives other logits than the model for covered images"
TOLD = "the map would be made of other differences than the model gives"


def _checks(
    run: Run[Any],
    covers: Covering,
    proof: Proof,
    sink: Sink,
    clean: Tensor,
    part: slice,
    chunk: int,
    *,
    strongest: bool,
) -> dict[str, Tensor]:
    """What a proof says of a part of the images, by the reason that it would be for a dense run.

    Also of a window of the shortest batch, and with ``strongest`` of the one that moves a score most. The model is
    asked about both here.
    """
    rows = proof.rows(part)
    at, found = sink.asked
    own, places = proof.covered[rows[0] : rows[-1] + 1], proof.images(rows)
    alike = proof.agrees(found, own, clean, places, part)
    told = proof.told(own, places, sink.target[places - part.start], sink.deltas[at])
    further = [*([sink.strongest] if strongest else []), *sink.shortest]
    if not further:
        return {COVERED: alike, TOLD: told}
    at, found = (torch.cat(each) for each in zip(*further, strict=True))
    places, windows = at % (part.stop - part.start), at.div(part.stop - part.start, rounding_mode="floor")
    parts = range(0, len(at), chunk)
    own = torch.cat([_own(run, covers, windows[n : n + chunk], places[n : n + chunk] + part.start) for n in parts])
    alike = alike & proof.agrees(found, own, clean, places + part.start, part)
    told = told & proof.told(own, places + part.start, sink.target[places], sink.deltas[at])
    return {COVERED: alike, TOLD: told}


def _own(run: Run[Any], covers: Covering, windows: Tensor, images: Tensor) -> Tensor:
    """(B, K): what the model itself says of covered images."""
    return run.matrix(run.forward(covers.of(windows, images), images), images)


def _settle(checks: dict[str, Tensor], known: Known, question: object) -> None:
    """Read all checks at once.

    Raises:
        Untraceable: One fails; it is known from now on.
    """
    for reason, holds in zip(checks, torch.stack([*checks.values()]).tolist(), strict=True):
        if not holds:
            known.dull[question] = reason
            raise Untraceable(reason)


def _group(engine: Engine, group: Group, sink: Sink, size: int, advance: Callable[[], None]) -> int:
    """Run one group's windows in parts of one size, since each shape costs set-up; returns the size that fitted."""
    lattice = engine.plan.lattice
    rows = dict(zip(group.places, lattice.numbers(group.windows), strict=True))
    pairs = [(place, n) for place in rows for n in range(sink.images)]
    even = -(-len(pairs) // -(-len(pairs) // size))
    macs = engine.plan.macs(group)
    width = even

    def work(part: Sequence[Pair]) -> None:
        nonlocal width
        if part[-1] != pairs[-1]:
            width = len(part)  # halved where memory ran out: filling up would undo that
        filled = [*part, *[part[-1]] * (width - len(part))] if len(pairs) > width else part
        sink.take(engine.run(group, filled), [(rows[place], image) for place, image in part])
        sink.macs += len(filled) * macs

    fitted = in_parts(pairs, even, work, advance)
    return size if fitted == even else fitted


def _waiting(program: Program, maps: Sequence[Tensor], budget: int) -> int:
    """Windows that may wait until the rest runs, in less memory than it reads of weights each time."""
    each = sum(maps[source].nbytes // len(maps[source]) for source in set(program.exits.values()))
    return min(ROWS, min(program.reads, budget // 4) // max(2 * each, 1))


def _tile_bytes(plan: Plan, maps: Sequence[Tensor]) -> int:
    """Bytes that one window needs: what the widest layer reads, gathers and gives, and its place in every buffer."""
    each = [m.nbytes // (op.size[0] * op.size[1]) for m, op in zip(maps, plan.ops, strict=True)]
    sizes = np.array([group.shapes for group in plan.groups]).prod(axis=2) * each
    read = [sizes[:, index] + 2 * sizes[:, [*op.inputs]].sum(axis=1) for index, op in enumerate(plan.ops)]
    moved = {source for op in plan.ops if not op.local or len(op.inputs) > 1 for source in op.inputs if source}
    return int(np.max(read)) + int(sizes[:, [*moved]].max(axis=0).sum())
