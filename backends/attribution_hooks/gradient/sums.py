"""``GradientSums``: gradients at a technique's points, all targets from one graph, added up as they come."""

from abc import ABC
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, ClassVar, TypeVar, final

import torch
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.errors import ModelError
from attribution.inputs.inputs import Inputs, joined
from attribution.running.execution import CPU_ROWS
from attribution.technique import Maps
from attribution.techniques.gradient.family import AveragedGradient, Point
from attribution_hooks.chunks import in_parts

T = TypeVar("T", bound=AveragedGradient)


class GradientSums(Attributor[T], ABC):
    """Σ over points of weight · (∂S/∂x · factor)^m, for each of the technique's moments m, in at least float32.

    Points and examples go through the model in one batch, of as many rows as the memory budget allows. Points are added
    one by one, so that the sums do not depend on these batches. Several moments are added in float64 where the device
    has it, because their difference may be much smaller than they are. Where the inputs themselves are the only point,
    the gradient comes from the clean forward.

    Techniques with the inputs as their only point share it. Others share their points where they differ in nothing but
    what becomes of the sums (`AveragedGradient.formula`).
    """

    backend: ClassVar[str] = "hooks"

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
        sums = _Sums(runs, first.output)
        if first._at_inputs:
            at_inputs = {each.technique.sums: [next(each.technique.points(each.inputs))] for each in runs}
            sums.add(at_inputs, range(len(run.inputs)))
        else:
            rows = first.rows(run)
            scores(run, run.inputs, rows, runs[1:])
            sums.add_all(rows)
        return [each.finished(run, sums.totals[run.technique.sums]) for each, run in asked]

    def finished(self, run: Run[T], totals: Mapping[str, Sequence[Tensor]]) -> Maps:
        """From the sums of each explained input to the raw maps."""
        maps = {}
        for name, moments in totals.items():
            maps[run.inputs.key(name)] = self.combine(run.technique, moments).to(wide(run.inputs.values[name]))
        self.tell(run, maps)
        return maps

    def output(self, run: Run[T], leaves: Inputs, examples: Tensor) -> Any:
        """What the model returns for these inputs, of which gradients are taken; also the place to change those."""
        return run.forward(leaves, examples)

    def combine(self, technique: T, moments: Sequence[Tensor]) -> Tensor:
        """From the sum of each moment to the raw map; of one moment the sum itself."""
        (only,) = moments
        return only

    def tell(self, run: Run[T], maps: Maps) -> None:
        """Hand on what else is known of the raw maps; nothing by default."""

    def rows(self, run: Run[T]) -> int:
        """How many rows go through the model at once."""
        most = CPU_ROWS if run.inputs.device.type == "cpu" else None
        bytes_of_one = self.image_bytes(run.model, run.technique, run.inputs)
        return run.execution.chunk(bytes_of_one, run.technique.samples * len(run.inputs), most=most)


class _Sums:
    """The sums so far, for techniques that are asked about one score at the same points.

    Args:
        runs: Of the techniques.
        output: What gradients are taken of.

    Attributes:
        totals: By what the techniques sum up, by explained input, for each moment (N, T, C, …).
    """

    def __init__(self, runs: Sequence[Run[Any]], output: Callable[[Run[Any], Inputs, Tensor], Any]) -> None:
        self.totals: dict[Hashable, dict[str, list[Tensor]]] = {}
        self._runs = runs
        self._output = output

    def add_all(self, rows: int) -> None:
        """All points of techniques that sum up the same, so many rows at once."""
        run, count = self._runs[0], len(self._runs[0].inputs)
        technique = run.technique
        points = technique.points(run.inputs)
        with run.progress(technique.samples * count, "point") as advance:
            while group := list(islice(points, max(1, rows // count))):
                work = partial(self.add, {technique.sums: group})
                rows = in_parts(range(len(group) * count), rows, work, advance)
        for each in self._runs:
            each.note("points_per_forward", rows)

    def add(self, points: Mapping[Hashable, Sequence[Point]], places: Sequence[int]) -> None:
        """One forward, and one backward for each target, for some examples of some points.

        What fails for lack of memory adds nothing.

        Args:
            points: By what is summed up; all have the same inputs.
            places: Examples of the points, in a row.
        """
        run, pieces = self._runs[0], {key: _pieces(each, places) for key, each in points.items()}
        shown = next(iter(pieces.values()))
        leaves = joined([point.inputs[rows] for point, rows in shown]).detach().requires_grad_()
        numbers = torch.arange(len(run.inputs), device=run.inputs.device)
        examples = torch.cat([numbers[rows] for _, rows in shown])
        known = dict(run.notes)
        output = self._output(run, leaves, examples)
        columns = run.scores(output, examples).unbind(1)
        for other in self._runs[1:]:
            other.notes.update({key: note for key, note in run.notes.items() if known.get(key) != note})
            if other.score is None:
                other.scores(output, examples)
        found: dict[Hashable, dict[str, list[Tensor]]] = {}
        for t, column in enumerate(columns):
            for name, gradient in gradients(column, leaves, keep=t + 1 < len(columns)).items():
                # begun here, where the graph of a single target is gone already
                found = found or {key: self._begun(key, len(columns)) for key in pieces}
                for key, own in pieces.items():
                    _add(own, name, gradient, [moment[:, t] for moment in found[key][name]], self._powers(key))
        self.totals = found

    def _begun(self, key: Hashable, targets: int) -> dict[str, list[Tensor]]:
        """A copy of the sums so far; zeros before the first."""
        if key in self.totals:
            return {name: [total.clone() for total in totals] for name, totals in self.totals[key].items()}
        found, powers = {}, self._powers(key)
        for name in self._runs[0].inputs.explained:
            x = self._runs[0].inputs.values[name]
            dtype = torch.float64 if len(powers) > 1 and x.device.type != "mps" else wide(x)
            found[name] = [x.new_zeros((len(x), targets, *x.shape[1:]), dtype=dtype) for _ in powers]
        return found

    def _powers(self, key: Hashable) -> tuple[int, ...]:
        return next(run.technique.moments for run in self._runs if run.technique.sums == key)


def _add(
    pieces: Sequence[tuple[Point, slice]],
    name: str,
    gradient: Tensor,
    moments: Sequence[Tensor],
    powers: Sequence[int],
) -> None:
    """Σ weight · (gradient · factor)^m of each piece to the sums (N, C, …) of one target."""
    first = 0
    for point, rows in pieces:
        own = gradient[first : first + rows.stop - rows.start].to(moments[0].dtype)
        first += len(own)
        own = own if point.factor is None else own * point.factor[name][rows]
        for power, moment in zip(powers, moments, strict=True):
            moment[rows] += point.weight * own**power


def wide(x: Tensor) -> torch.dtype:
    """That of raw maps."""
    return torch.promote_types(x.dtype, torch.float32)


def gradients(column: Tensor, leaves: Inputs, *, keep: bool) -> dict[str, Tensor]:
    """By explained input; one that the score does not depend on has a gradient of 0, and is left out.

    Raises:
        ModelError: The score depends on none.
    """
    explained = [leaves.values[name] for name in leaves.explained]
    found = torch.autograd.grad(column.sum(), explained, retain_graph=keep, allow_unused=True)
    if all(gradient is None for gradient in found):
        raise ModelError("no gradient of the score reaches the inputs; look for detach() in the model or the score")
    return {name: each for name, each in zip(leaves.explained, found, strict=True) if each is not None}


def stacked(columns: Sequence[Tensor], leaves: Inputs) -> dict[str, Tensor]:
    """(N, T, …) by explained input, in at least float32, from the scores (N,) of each target.

    Raises:
        ModelError: A score depends on none of the inputs.
    """
    found = [gradients(column, leaves, keep=t + 1 < len(columns)) for t, column in enumerate(columns)]
    blank = {name: torch.zeros_like(leaves.values[name]) for name in leaves.explained}
    whole = {name: torch.stack([each.get(name, zero) for each in found], dim=1) for name, zero in blank.items()}
    return {name: map_.to(wide(map_)) for name, map_ in whole.items()}


def _pieces(group: Sequence[Point], places: Sequence[int]) -> list[tuple[Point, slice]]:
    """Which examples of which points stand at consecutive places: all of one point, then all of the next."""
    count, found = len(group[0].inputs), []
    for index, point in enumerate(group):
        begin, end = max(places[0] - index * count, 0), min(places[-1] + 1 - index * count, count)
        if begin < end:
            found.append((point, slice(begin, end)))
    return found


def scores(run: Run[Any], inputs: Inputs, rows: int, others: Sequence[Run[Any]] = ()) -> Tensor:
    """(N, T), without graph: the scores of all examples with these values, ``rows`` at once; the clean ones settle.

    The same output settles ``others`` as well.
    """
    examples = torch.arange(len(inputs), device=inputs.device)
    parts = []
    with torch.no_grad():
        for some in examples.split(rows):
            output = run.forward(inputs[some], some)
            parts.append(run.scores(output, some))
            for other in others:
                other.scores(output, some)
    return torch.cat(parts)
