"""Each window by what it changes: the engine's run over all windows of a call."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, fx

from attribution.attributor import Run
from attribution.techniques import Occlusion
from attribution.techniques.occlusion import Lattice
from attribution_hooks.occlusion.chunks import fitting, in_parts
from attribution_hooks.occlusion.engine import Engine
from attribution_hooks.occlusion.graph import Known, Program, Untraceable, build
from attribution_hooks.occlusion.plan import Group, Plan
from attribution_hooks.occlusion.proof import Proof

LEAST_GAIN = 1.15
"""How many times fewer multiply-accumulates than dense the plan must promise."""

CUDA_WINDOWS = 1024
"""Windows at once on CUDA, where large batches fill the device; not tuned yet."""

WINDOWS = 32
"""Windows at once on a CPU: fewer pay too often for each layer's set-up, more gain nothing (``docs/benchmarks.md``)."""

Pair = tuple[int, int]


def differences(
    run: Run, technique: Occlusion, lattice: Lattice, logits: Tensor, target: Tensor, known: Known, chunk: int
) -> Tensor:
    """score(x) − score(x with window w covered): (windows, N, T).

    The model is traced in every call, since numbers outside of it are read while tracing; and the engine is believed
    in every call only after `Proof`.

    Args:
        run: Its inputs are (N, C, H, W).
        technique: Says what covers and how logits become scores.
        lattice: The windows.
        logits: (N, K), of the model itself for the inputs; the engine's must be the same.
        target: (N, T).
        known: What earlier calls found out about the model.
        chunk: Whole images per forward of the model.

    Raises:
        Untraceable: The model cannot be taken apart, or gains too little.
    """
    inputs, budget = run.inputs, run.execution.budget // 2
    question = (inputs.shape[1:], lattice)
    if (reason := known.reason(question)) is not None:
        raise Untraceable(reason)
    program, maps, output = build(run.model, known.traced(run.model), inputs[:1])
    plan = Plan.of(program.ops, lattice, program.rest_macs)
    gain = plan.dense / max(plan.executed + plan.dense // len(lattice.windows), 1)
    if gain < LEAST_GAIN:
        known.dull[question] = f"tiles end at {program.stopped_by} and would save too little ({gain:.2f}x)"
        raise Untraceable(known.dull[question])
    at_once = max(1, budget // (2 * sum(m.numel() * m.element_size() for m in maps)))
    most = WINDOWS if inputs.device.type == "cpu" else CUDA_WINDOWS
    size = run.execution.batch_size or max(1, min(most, budget // max(_tile_bytes(plan, maps), 1)))
    precise = torch.promote_types(logits.dtype, torch.float32)
    if len(inputs) > 1:
        maps, output = [], None  # of one image; they would lie beside the proof's forwards
    proof = Proof.of(run, technique, lattice, logits, target, chunk)
    deltas = logits.new_empty((len(lattice.windows), *target.shape), dtype=precise)
    used, macs = size, 0
    with run.progress(len(lattice.windows) * len(inputs), "window") as advance:
        for first in range(0, len(inputs), at_once):
            part = slice(first, min(first + at_once, len(inputs)))
            if len(inputs) > 1:
                maps, output = program.clean(inputs[part])
            clean = run.logits(output)
            if not proof.clean_agrees(clean, part):
                known.dull[question] = "the traced model gives other logits than the model"
                raise Untraceable(known.dull[question])
            engine, size = fitting(size, partial(Engine, program, plan, maps, cover=technique.cover(inputs)))
            used, maps = min(used, size), []
            prove = partial(_proved, run, engine, program, clean, part)
            macs += prove(proof, known, question)
            sink = _Sink(run, technique, program, clean, target[part], deltas[:, part], used)
            for group in plan.groups:
                used = _group(engine, group, sink, used, advance)
            sink.flush()
            macs += sink.macs
            if first == 0:
                strongest = proof.of_strongest(run, technique, lattice, deltas[:, part])
                macs += prove(strongest, known, question, (technique, target, deltas))
    run.note("engine", "incremental")
    run.note("windows_per_forward", used)
    run.note("macs_dense", plan.dense * len(inputs))
    run.note("macs", macs)
    run.note("macs_floor", plan.floor * len(inputs))
    return deltas


class _Sink:
    """Takes what the rest of the network reads, runs it in full batches, and fills in the differences.

    Groups are small, and the rest may be all weights: it is run when there are enough windows for it.

    Args:
        run: How logits are found in what the model returns.
        technique: How logits become scores.
        program: Its rest is run.
        clean: (n, K), by the engine itself, so that its rounding cancels.
        target: (n, T).
        deltas: (windows, n, T), to be filled.
        size: Windows per batch.
    """

    def __init__(
        self, run: Run, technique: Occlusion, program: Program, clean: Tensor, target: Tensor, deltas: Tensor, size: int
    ) -> None:
        self.images = len(target)
        self.macs = 0
        self._run, self._technique, self._program = run, technique, program
        self._clean, self._target, self._deltas = technique.scores(clean).gather(1, target), target, deltas
        self._size = size
        self._waiting: list[tuple[dict[fx.Node, Tensor], list[Pair]]] = []

    def take(self, values: dict[fx.Node, Tensor], pairs: list[Pair]) -> None:
        """Exits (B, …) for windows of the lattice and images; more of the former are ignored."""
        if sum(len(pairs) for _, pairs in self._waiting) + len(pairs) > self._size:
            self.flush()
        self._waiting.append((values, pairs))

    def flush(self) -> None:
        """Run what waits; where that fails, it goes on waiting."""
        if not self._waiting:
            return
        pairs = [pair for _, part in self._waiting for pair in part]
        values = {
            node: torch.cat([values[node][: len(part)] for values, part in self._waiting])
            for node in self._program.exits
        }
        self._waiting = [(values, pairs)]

        def work(rows: Sequence[int]) -> None:
            part = slice(rows[0], rows[-1] + 1)
            output = self._program.finish({node: value[part] for node, value in values.items()})
            at, images = torch.tensor(pairs[part], device=self._target.device).unbind(dim=1)
            scores = self._technique.scores(self._run.logits(output)).gather(1, self._target[images])
            self._deltas[at, images] = (self._clean[images] - scores).to(self._deltas.dtype)
            self.macs += len(rows) * self._program.rest_macs

        in_parts(range(len(pairs)), self._size, work, lambda: None)
        self._waiting = []


def _proved(
    run: Run,
    engine: Engine,
    program: Program,
    clean: Tensor,
    part: slice,
    proof: Proof,
    known: Known,
    question: object,
    found: tuple[Occlusion, Tensor, Tensor] | None = None,
) -> int:
    """The multiply-accumulates that it took to hold the engine against a proof about a part of the images.

    With ``found``, which are the technique, all targets and all differences, these are held against the windows alone.

    Raises:
        Untraceable: The engine says something else than the model.
    """
    alone = []
    pairs = [proof.pairs[row] for row in proof.rows(part)]
    macs, columns = len(pairs) * program.rest_macs, len(engine.plan.lattice.columns)
    for window, image in pairs:
        place = divmod(window, columns)
        group = next(group for group in engine.plan.groups if place in group)
        alone.append(engine.run(group, [(group.windows.index(place), image - part.start)]))
        macs += engine.plan.macs(group)
    waiting = {node: torch.cat([values[node] for values in alone]) for node in program.exits}
    covered: list[Tensor] = []

    def work(rows: Sequence[int]) -> None:
        some = slice(rows[0], rows[-1] + 1)
        covered.append(run.logits(program.finish({node: value[some] for node, value in waiting.items()})))

    in_parts(range(len(pairs)), len(pairs), work, lambda: None)
    if not proof.agrees(torch.cat(covered), clean, part):
        known.dull[question] = "the traced model gives other logits than the model for covered images"
        raise Untraceable(known.dull[question])
    if found is not None:
        technique, target, deltas = found
        windows, images = (list(column) for column in zip(*pairs, strict=True))
        rows = [image - part.start for image in images]
        if not proof.repeats(technique, clean[rows], torch.cat(covered), target[images], deltas[windows, images]):
            known.dull[question] = "windows that run together give other logits than one alone"
            raise Untraceable(known.dull[question])
    return macs


def _group(engine: Engine, group: Group, sink: _Sink, size: int, advance: Callable[[], None]) -> int:
    """Run one group's windows in parts of one size, since each shape costs set-up; returns the size that fitted."""
    columns = len(engine.plan.lattice.columns)
    rows = [row * columns + column for row, column in group.windows]
    pairs = [(window, n) for window in range(len(rows)) for n in range(sink.images)]
    even = -(-len(pairs) // -(-len(pairs) // size))
    macs = engine.plan.macs(group)
    width = even

    def work(part: Sequence[Pair]) -> None:
        nonlocal width
        if part[-1] != pairs[-1]:
            width = len(part)  # halved where memory ran out: filling up would undo that
        filled = [*part, *[part[-1]] * (width - len(part))] if len(pairs) > width else part
        sink.take(engine.run(group, filled), [(rows[window], image) for window, image in part])
        sink.macs += len(filled) * macs

    fitted = in_parts(pairs, even, work, advance)
    return size if fitted == even else fitted


def _tile_bytes(plan: Plan, maps: Sequence[Tensor]) -> int:
    """Bytes that one window needs: what the widest layer reads, gathers and gives, and its place in every buffer."""
    widest = 0
    room = [0] * len(maps)
    places = [height * width for height, width in (op.size for op in plan.ops)]
    for group in plan.groups:
        sizes = [
            height * width * (m[0].numel() // place) * m.element_size()
            for (height, width), m, place in zip(group.shapes, maps, places, strict=True)
        ]
        for index, op in enumerate(plan.ops):
            widest = max(widest, sizes[index] + 2 * sum(sizes[source] for source in op.inputs))
            for source in op.inputs if not op.local or len(op.inputs) > 1 else ():
                room[source] = max(room[source], sizes[source])
    return widest + sum(room)
