"""``Remover``: the forwards of a `Removal`."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.errors import AttributionError, InputError
from attribution.inputs.inputs import Inputs
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
            clean = work.clean()
            for name, each in technique.maps.items():
                _fits(name, each.values.shape[1], clean.shape[1])
            work.try_channels_last()
            orders = {name: work.order(each) for name, each in technique.maps.items()}
            bases = {name: work.bases(name) for name in {each.input: None for each in orders.values()}}
            ended = {each.input: None for each in orders.values() if each.ends}
            covered = {name: work.covered(name, bases[name].cover) for name in ended}
            found = {}
            total = sum(len(each.inner) * each.ranks[..., 0].numel() for each in orders.values())
            with run.progress(2 * len(technique.baselines) * total, "image") as done:
                for name, each in orders.items():
                    curve = clean.new_empty(*clean.shape, len(technique.baselines), 2, len(each.counts))
                    curve[...] = clean[..., None, None, None]
                    if each.ends:
                        curve[..., each.ends] = covered[each.input][..., None, None]
                    work.fill(curve, each, bases[each.input], done)
                    found[name] = curve
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

    def __init__(self, run: Run[Removal]) -> None:
        self._run = run
        self._inputs = run.inputs
        most = CPU_WINDOWS if run.inputs.device.type == "cpu" else None
        needed = layers.peak_bytes(run.model, run.inputs)
        self._at_once = run.execution.chunk(needed, 2**31, most=most)
        self._last: tuple[str, ...] = ()
        self.rows = 0

    def clean(self) -> Tensor:
        """(N, T), of the photos as they are."""
        found: list[Tensor] = []
        for part in torch.arange(len(self._inputs), device=self._inputs.device).split(self._at_once):
            output = self._ran(None, None, part)
            found.append(self._run.scores(output, part))
        self._seen = output, part
        return torch.cat(found)

    def try_channels_last(self) -> None:
        """Show images with their channels last, if the model says the same of two photos so: up to twice as fast."""
        output, part = self._seen
        images = tuple(name for name in self._inputs.explained if self._inputs.values[name].ndim == 4)
        if self._inputs.device.type != "cpu" or not images or _one_channel(self._run.model, self._inputs, images):
            return
        ends = [0, len(part) - 1] if len(part) > 1 else [0]
        expected = self._run.matrix(output, part)[ends]
        self._last = images
        try:
            found = self._run.matrix(self._ran(None, None, part[ends]), part[ends])
        except AttributionError:  # such as of a forward that takes views
            self._last = ()
            return
        close = torch.finfo(expected.dtype).eps ** 0.6 * expected.abs().amax()
        if found.shape != expected.shape or not bool(((found - expected).abs() <= close).all()):
            self._last = ()

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
        return self._run.scores(self._ran(name, changed, examples), examples)

    def _laid(self, shown: Tensor | Inputs) -> Tensor | Inputs:
        """In the layout that was found to be good."""
        if not self._last:
            return shown
        if not isinstance(shown, Inputs):
            return shown.contiguous(memory_format=torch.channels_last)
        laid = {name: shown.values[name].contiguous(memory_format=torch.channels_last) for name in self._last}
        return shown.replaced(laid)

    def _ran(self, name: str | None, changed: Tensor | None, examples: Tensor) -> object:
        """What the model returns for some examples, one of whose inputs may be changed."""
        self.rows += len(examples)
        shown: Tensor | Inputs
        if name is None or changed is None:
            shown = self._inputs[examples]
        else:
            shown = changed if self._inputs.plain else self._inputs[examples].replaced({name: changed})
        shown = self._laid(shown)
        output: object = self._run.forward(shown, examples)
        return output


def _one_channel(model: nn.Module, inputs: Inputs, images: tuple[str, ...]) -> bool:
    """Whether a convolution has one channel: torch misreads some of them where channels lie last."""
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    counts = [count for each in convolutions for count in (each.in_channels, each.out_channels)]
    return 1 in counts or not counts or any(inputs.values[name].shape[1] == 1 for name in images)


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
