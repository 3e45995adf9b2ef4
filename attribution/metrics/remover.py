"""``Remover``: the forwards of a `Removal`."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.errors import InputError
from attribution.lowered.forwards import Forward, forwarding
from attribution.metrics import baselines, ranking
from attribution.metrics.cells import CellMap, lattice, places_of
from attribution.metrics.imputation import impute
from attribution.metrics.removal import Removal, counts
from attribution.running.execution import CPU_WINDOWS
from attribution.technique import Maps, Technique


class Remover(Attributor[Removal]):
    """`Removal` by plain forwards."""

    technique_type: ClassVar[type[Technique]] = Removal
    backend: ClassVar[str] = "forwards"

    def compute(self, run: Run[Removal]) -> Maps:
        """(N, T, B, 2, S + 1) by map."""
        technique = run.technique
        with torch.no_grad():
            work = _Work(run)
            matrix = work.clean()
            assert run.clean is not None  # the matrix settled it
            clean = run.clean
            for name, each in technique.maps.items():
                _fits(name, each.values.shape[1], clean.shape[1])
            orders = {name: work.order(each) for name, each in technique.maps.items()}
            bases = {name: work.bases(name) for name in {each.input: None for each in orders.values()}}
            total = sum(len(each.inner) * each.ranks[..., 0].numel() for each in orders.values())
            rows, first = 2 * len(technique.baselines) * total, work.rows

            def curves(forward: Forward) -> Maps:
                work.begin(forward, first)
                ended = {each.input: None for each in orders.values() if each.ends}
                covered = {name: work.covered(name, bases[name].cover) for name in ended}
                found = {}
                with run.progress(rows, "image") as done:
                    for name, each in orders.items():
                        curve = clean.new_empty(*clean.shape, len(technique.baselines), 2, len(each.counts))
                        curve[...] = clean[..., None, None, None]
                        if each.ends:
                            curve[..., each.ends] = covered[each.input][..., None, None]
                        work.fill(curve, each, bases[each.input], done)
                        found[name] = curve
                return found

            found = forwarding(run, matrix, rows, curves)
        run.note("forwards per photo", work.rows // len(run.inputs))
        return found


@dataclass(frozen=True)
class _Order:
    """The order of one map's cells.

    Attributes:
        input: That the cells cover.
        ranks: (N, T or 1, n).
        cells: (places,), the cell of each place.
        places: Of the input, one axis each.
        counts: Numbers of removed cells.
    """

    input: str
    ranks: Tensor
    cells: Tensor
    places: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def inner(self) -> list[int]:
        """The points at which some cells are removed and some are left."""
        return [k for k, count in enumerate(self.counts) if 0 < count < self.ranks.shape[2]]

    @property
    def ends(self) -> list[int]:
        """The points at which nothing is left."""
        return [k for k, count in enumerate(self.counts) if count == self.ranks.shape[2]]


@dataclass(frozen=True)
class _Bases:
    """What stands in place of removed cells of an input.

    Attributes:
        cover: (B, N, …).
        linear: (B,), whether removed places are imputed from those that are left.
        noise: (N, …), that is added to them; ``None`` where no baseline is linear.
    """

    cover: Tensor
    linear: Tensor
    noise: Tensor | None


class _Work:
    """Forwards of changed photos, some of them at once."""

    rows: int
    _forward: Forward

    def __init__(self, run: Run[Removal]) -> None:
        self._run = run
        self._inputs = run.inputs
        most = CPU_WINDOWS if run.inputs.device.type == "cpu" else None
        needed = layers.peak_bytes(run.model, run.inputs)
        self._at_once = run.execution.chunk(needed, 2**31, most=most)
        self.rows = 0

    def begin(self, forward: Forward, rows: int) -> None:
        """Go on with these forwards, after so many rows."""
        self._forward, self.rows = forward, rows

    def clean(self) -> Tensor:
        """(N, K), what scores of the photos as they are are picked from; it settles these."""
        run, parts = self._run, torch.arange(len(self._inputs), device=self._inputs.device).split(self._at_once)
        self.rows += len(self._inputs)
        return torch.cat([run.matrix(run.forward(self._inputs[part], part), part) for part in parts])

    def order(self, map_: CellMap) -> _Order:
        """The order of a map's cells."""
        asked, shape = self._run.technique, tuple(map_.values.shape[2:])
        places = places_of(self._inputs, map_.input)
        ranks = ranking.ranks(map_.values, seed=asked.seed, first=asked.first)
        cells = lattice(shape, places, ranks.device)
        return _Order(map_.input, ranks, cells, places, tuple(counts(ranks.shape[2], asked.points)))

    def bases(self, name: str) -> _Bases:
        """What an input is replaced by."""
        asked = self._run.technique
        given, drawn = asked.baselines.values(), {"seed": asked.seed, "first": asked.first}
        linear = torch.tensor([isinstance(one, str) and one == "linear" for one in given], device=self._inputs.device)
        return _Bases(
            torch.stack([baselines.made(one, self._inputs, name, **drawn) for one in given]),
            linear,
            baselines.imputation_noise(self._inputs, name, **drawn) if bool(linear.any()) else None,
        )

    def covered(self, name: str, bases: Tensor) -> Tensor:
        """(N, T, B), of photos of which nothing is left."""
        jobs = torch.arange(bases.shape[0] * bases.shape[1], device=bases.device)
        found = [
            self._scores(name, bases.flatten(0, 1)[part], part % bases.shape[1]) for part in jobs.split(self._at_once)
        ]
        whole: Tensor = torch.cat(found).unflatten(0, bases.shape[:2])
        return whole.movedim(0, -1)

    def fill(self, curve: Tensor, order: _Order, bases: _Bases, done: Callable[[], None]) -> None:
        """The inner points of one map's curve (N, T, B, 2, S + 1)."""
        photos, own, cells = order.ranks.shape
        device = bases.cover.device
        shape = (len(bases.cover), 2, len(order.inner), own, photos)
        removed, inner = (torch.tensor(each, device=device) for each in (order.counts, order.inner))
        x = self._inputs.values[order.input]
        jobs = torch.arange(prod(shape), device=device)
        for part in jobs.split(self._at_once) if len(jobs) else ():
            base, way, step, t, n = torch.unravel_index(part, shape)
            step = inner[step]
            rank, count = order.ranks[n, t], removed[step][:, None]
            gone = torch.where(way[:, None] == 0, rank < count, rank >= cells - count)
            gone = gone[:, order.cells].reshape(-1, *[1] * (x.ndim - 1 - len(order.places)), *order.places)
            scores = self._scores(order.input, _changed(x, gone, bases, base, n), n)
            if own == 1:
                curve[n, :, base, way, step] = scores
            else:
                curve[n, t, base, way, step] = scores.gather(1, t[:, None])[:, 0]
            for _ in part:
                done()

    def _scores(self, name: str, changed: Tensor, examples: Tensor) -> Tensor:
        """Of some examples, one of whose inputs is changed."""
        self.rows += len(examples)
        shown = changed if self._inputs.plain else self._inputs[examples].replaced({name: changed})
        return self._forward(shown, examples)


def _changed(x: Tensor, gone: Tensor, bases: _Bases, base: Tensor, n: Tensor) -> Tensor:
    """Photos n of which some places are gone, by baseline."""
    shown = x[n]
    changed = torch.where(gone, bases.cover[base, n], shown)
    if bases.noise is not None:
        linear = bases.linear[base].nonzero()[:, 0]
        if len(linear):
            imputed = impute(shown[linear], gone[linear])
            changed[linear] = torch.where(gone[linear], imputed + bases.noise[n[linear]], imputed)
    return changed


def _fits(name: str, own: int, targets: int) -> None:
    if own not in (1, targets):
        raise InputError(
            f"the map {name!r} is of {own} targets, and {targets} are scored; give (N, {targets}, *cells), or (N, 1, "
            "*cells) for all of them"
        )
