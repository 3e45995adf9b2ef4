"""``GradientSums``: gradients at a technique's points, all targets from one graph, added up as they come."""

from abc import ABC
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, ClassVar, TypeVar, final

import torch
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.inputs.inputs import Inputs
from attribution.running.execution import CPU_ROWS
from attribution.technique import Maps
from attribution.techniques.gradient.family import AveragedGradient, Point
from attribution_hooks.chunks import fits, in_parts
from attribution_hooks.gradient.gradients import gradients, scores, wide
from attribution_hooks.gradient.pieces import Piece, Pieces

T = TypeVar("T", bound=AveragedGradient)


class GradientSums(Attributor[T], ABC):
    """Σ over points of weight · (∂S/∂x · factor)^m, for each of the technique's `moments` m, in at least float32.

    Points and examples go through the model in one batch, of as many rows as the memory budget allows. Points are made
    for their batch, and nothing of them is kept but what the model keeps. They are added one by one, so that the sums
    do not depend on these batches. Where the inputs themselves are the only point, the gradient comes from the clean
    forward. Where no row costs more than its launches, the clean inputs and whatever else is only scored go through the
    model with the points.

    Techniques with the inputs as their only point share it. Others share their points where they differ in nothing but
    what becomes of the sums (`AveragedGradient.formula`).
    """

    backend: ClassVar[str] = "hooks"
    precise: ClassVar[bool] = False
    """Whether sums are added in float64 where the device has it: a small difference may be taken of large ones."""

    def moments(self, technique: T) -> tuple[int, ...]:
        """Powers of the gradients whose sums `combine` takes: (1, 2) for a variance."""
        return (1,)

    def image_bytes(self, model: nn.Module, technique: T, inputs: Inputs) -> int:
        """The whole forward's graph, and the gradients of its widest part."""
        return layers.graph_bytes(model, inputs) + 2 * layers.peak_bytes(model, inputs)

    @final
    def compute(self, run: Run[T]) -> Maps:
        """(N, T, C, …) for each explained input."""
        (maps,) = self.compute_many([(self, run)])
        return maps

    @property
    def shared(self) -> Hashable:
        """Of what gradients are taken, and where: at the inputs, or at points that belong to the sums."""
        return type(self).output, None if self._at_inputs else self.technique.sums

    @property
    def _at_inputs(self) -> bool:
        return self.technique.samples == 1 and self.technique.batch_of == "images"

    @final
    @classmethod
    def compute_many(cls, asked: Sequence[tuple[Any, Run[Any]]]) -> list[Maps]:
        """The same of each technique, from one gradient at each point."""
        (first, run), runs = asked[0], [run for _, run in asked]
        sums = _Sums(asked)
        if first._at_inputs:
            sums.add({each.technique.sums: _line(each) for each in runs}, range(len(run.inputs)))
        else:
            sums.add_all(first.rows, first.ends(run))
        return [each.finished(run, sums.of(each, run.technique), sums.ends) for each, run in asked]

    def finished(self, run: Run[T], totals: Mapping[str, Sequence[Tensor]], ends: Sequence[Tensor]) -> Maps:
        """From the sums of each explained input, and the scores of `ends`, to the raw maps."""
        maps, factor = {}, run.technique.factor(run.inputs)
        for name, moments in totals.items():
            found = self.combine(run.technique, moments).to(wide(run.inputs.values[name]))
            maps[run.inputs.key(name)] = found if factor is None else found * factor[name].unsqueeze(1)
        self.tell(run, maps, ends)
        return maps

    def output(self, run: Run[T], shown: Inputs, leaves: Inputs, examples: Tensor) -> Any:
        """What the model returns for what it is shown, of which gradients are taken; also the place to change those.

        Args:
            run: Of the call.
            shown: What the model may write into.
            leaves: Where its graph begins; they have its shapes, and no values.
            examples: Which rows of the inputs it shows.
        """
        return run.forward(shown, examples, own=True)

    def combine(self, technique: T, moments: Sequence[Tensor]) -> Tensor:
        """From the sum of each of the technique's moments to the raw map; of one moment the sum itself."""
        (only,) = moments
        return only

    def ends(self, run: Run[T]) -> Sequence[Inputs]:
        """Beside the clean ones, inputs of which scores are wanted, and no gradients; none by default."""
        return ()

    def tell(self, run: Run[T], maps: Maps, ends: Sequence[Tensor]) -> None:
        """Hand on what else is known of the raw maps, and of the scores (N, T) of `ends`; nothing by default."""

    def rows(self, run: Run[T], points: int) -> int:
        """How many rows of so many points go through the model at once."""
        most = CPU_ROWS if run.inputs.device.type == "cpu" else None
        bytes_of_one = self.image_bytes(run.model, run.technique, run.inputs)
        return run.execution.chunk(bytes_of_one, points * len(run.inputs), most=most)


class _Sums:
    """The sums so far, for techniques that are asked about one score at the same points.

    Args:
        asked: The techniques' attributors, with the run of each.

    Attributes:
        totals: By what the techniques sum up, by explained input, for each moment that one of them takes (N, T, C, …).
        ends: The scores (N, T) of each of the attributor's `GradientSums.ends`.
    """

    def __init__(self, asked: Sequence[tuple[GradientSums[Any], Run[Any]]]) -> None:
        self.totals: dict[Hashable, dict[str, list[Tensor]]] = {}
        self.ends: Sequence[Tensor] = ()
        self._runs = [run for _, run in asked]
        self._output, self._precise = asked[0][0].output, asked[0][0].precise
        self._powers: dict[Hashable, list[int]] = {}
        for maker, run in asked:
            powers = self._powers.setdefault(run.technique.sums, [])
            powers += [power for power in maker.moments(run.technique) if power not in powers]

    def of(self, maker: GradientSums[Any], technique: AveragedGradient) -> dict[str, list[Tensor]]:
        """By explained input, those of the technique's moments."""
        places = [self._powers[technique.sums].index(power) for power in maker.moments(technique)]
        return {name: [totals[place] for place in places] for name, totals in self.totals[technique.sums].items()}

    def add_all(self, fitting: Callable[[Run[Any], int], int], ends: Sequence[Inputs]) -> None:
        """All points of techniques that sum up the same, and the scores of the clean inputs and of ``ends``.

        Args:
            fitting: How many rows of so many points go through the model at once.
            ends: See `GradientSums.ends`.
        """
        run, count, points = self._runs[0], len(self._runs[0].inputs), self._runs[0].technique.samples
        every = points + 1 + len(ends)
        if run.inputs.device.type != "cpu" and fitting(run, every) == every * count:
            line = _line(run, [run.inputs, *ends])
            if fits(partial(self.add, {run.technique.sums: line}, scored=1 + len(ends)), range(every * count)):
                self._told(points * count)
                return
        rows = fitting(run, points)
        scores(run, run.inputs, rows, self._runs[1:])
        self.ends = [scores(run, end, rows) for end in ends]
        first, end, work = 0, points * count, partial(self.add, {run.technique.sums: _line(run)})
        with run.progress(end, "point") as advance:
            while first < end:
                group = range(first, min(first + max(1, rows // count) * count, end))
                rows, first = in_parts(group, rows, work, advance), group.stop
        self._told(rows)

    def _told(self, rows: int) -> None:
        for each in self._runs:
            each.note("points_per_forward", rows)

    def add(self, lines: Mapping[Hashable, Pieces], places: Sequence[int], *, scored: int = 0) -> None:
        """One forward, and one backward for each target, for some examples of some points.

        What fails for lack of memory adds nothing.

        Args:
            lines: By what is summed up; all have the same inputs.
            places: Examples of the points, in a row.
            scored: How many of the points are there for their scores alone, the clean inputs first.
        """
        run, count = self._runs[0], len(self._runs[0].inputs)
        shown, leaves, pieces = _begun(lines, places)
        numbers = torch.arange(count, device=run.inputs.device)
        examples = torch.cat([numbers[piece.rows] for piece in next(iter(pieces.values()))])
        known = dict(run.notes)
        output = self._output(run, shown, leaves, examples)
        del shown  # where the model keeps it not, its memory is for the gradients
        if scored:
            with torch.no_grad():
                clean = output[:count] if isinstance(output, Tensor) else run.forward(run.inputs, numbers)
                for each in self._runs:
                    each.scores(clean, numbers)
        found_scores = run.scores(output, examples)
        columns = found_scores.unbind(1)
        if scored:
            self.ends = found_scores.detach()[count : scored * count].split(count)
        for other in self._runs[1:]:
            other.notes.update({key: note for key, note in run.notes.items() if known.get(key) != note})
            if other.score is None:
                other.scores(output, examples)
        found: dict[Hashable, dict[str, list[Tensor]]] = {}
        for t, column in enumerate(columns):
            for name, gradient in gradients(column, leaves, keep=t + 1 < len(columns)).items():
                # begun here, where the graph of a single target is gone already
                found = found or {key: self._so_far(key, len(columns)) for key in pieces}
                for key, own in pieces.items():
                    _add(own, name, gradient, [moment[:, t] for moment in found[key][name]], self._powers[key])
        self.totals = found

    def _so_far(self, key: Hashable, targets: int) -> dict[str, list[Tensor]]:
        """A copy of the sums so far; zeros before the first."""
        if key in self.totals:
            return {name: [total.clone() for total in totals] for name, totals in self.totals[key].items()}
        found, powers = {}, self._powers[key]
        for name in self._runs[0].inputs.explained:
            x = self._runs[0].inputs.values[name]
            dtype = torch.float64 if self._precise and x.device.type != "mps" else wide(x)
            found[name] = [x.new_zeros((len(x), targets, *x.shape[1:]), dtype=dtype) for _ in powers]
        return found


def _line(run: Run[Any], scored: Sequence[Inputs] = ()) -> Pieces:
    """Of the technique of a run, after points that have no weight."""
    before = [Point(inputs, weight=0.0) for inputs in scored]
    return Pieces(lambda: chain(before, run.technique.points(run.inputs)), len(run.inputs))


def _begun(
    lines: Mapping[Hashable, Pieces], places: Sequence[int]
) -> tuple[Inputs, Inputs, dict[Hashable, list[Piece]]]:
    """What the model is shown, where its graph begins, and of what its rows are pieces.

    The leaves are a zero each, expanded. x + (−0) is x bit for bit, on memory that is nobody else's, and its gradient
    is that of the leaf. A leaf with the values themselves is one the model must not write into, so that it would have
    to be kept beside a copy.
    """
    found = {key: line.at(places) for key, line in lines.items()}
    inputs, _ = next(iter(found.values()))
    values = {name: inputs.values[name] for name in inputs.explained}
    leaves = {name: x.new_full((), -0.0).expand_as(x).requires_grad_() for name, x in values.items()}
    shown = {name: x + leaves[name] for name, x in values.items()}
    return inputs.replaced(shown), inputs.replaced(leaves), {key: pieces for key, (_, pieces) in found.items()}


def _add(
    pieces: Sequence[Piece],
    name: str,
    gradient: Tensor,
    moments: Sequence[Tensor],
    powers: Sequence[int],
) -> None:
    """Σ weight · (gradient · factor)^m of each piece to the sums (N, C, …) of one target."""
    first = 0
    for piece in pieces:
        rows = piece.rows
        own = gradient[first : first + rows.stop - rows.start].to(moments[0].dtype)
        first += len(own)
        if not piece.weight:
            continue
        own = own if piece.factor is None else own * piece.factor[name][rows]
        for power, moment in zip(powers, moments, strict=True):
            moment[rows].add_(piece.weight * (own if power == 1 else own**power))  # += would write it back as well
