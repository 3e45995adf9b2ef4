"""``Windowed``: one covered input, cut to what Captum lays its windows on."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attribution.attributor import Run
from attribution.techniques import Occlusion
from attribution.techniques.perturbation.family import places_of
from attribution.techniques.perturbation.lattice import Bounds, Lattice


@dataclass(frozen=True, eq=False)
class Windowed:
    """An input as Captum gets it: the channels that are covered, from the first window to the end of the last.

    Captum lays windows from 0 to the end of whatever it is given, and covers neighbouring channels. So it is given the
    covered channels alone, cut to the lattice's bounds, and what comes back is put in its place.

    Where windows within these bounds are left out, Captum gets a further channel of zeros that is covered by ones.
    There each row tells which places its window covers, in whatever order Captum takes the windows. A window that
    touches no place of the region is not run.

    Attributes:
        name: Of the input.
        lattice: The windows that are run.
        given: What Captum gets, (N, F) or (N, C, *places).
        cover: What covers it.
        window: One size per axis behind that of the examples.
        stride: Likewise.
    """

    name: str
    lattice: Lattice
    given: Tensor
    cover: Tensor
    window: tuple[int, ...]
    stride: tuple[int, ...]
    _clean: Tensor
    _channels: Tensor | None
    _region: Tensor | None

    @classmethod
    def of(cls, run: Run[Occlusion], name: str) -> "Windowed":
        """An input of a call."""
        technique, clean = run.technique, run.inputs.values[name]
        places = places_of(clean)
        lattice = technique.lattice(*places)
        window, stride = technique.sizes(len(places))
        channels, region = None, None
        if technique.channels is not None:
            channels = torch.tensor(technique.channels, device=clean.device)
        cover = technique.cover(clean, name).expand(-1, *clean.shape[1:])
        given, cover = (_cut(each, channels, lattice.bounds) for each in (clean, cover))
        if lattice.kept is not None:
            assert isinstance(technique.region, Tensor)  # bounds leave no window out
            region = _cut(technique.region.to(clean.device)[None, None], None, lattice.bounds)[0, 0]
            if clean.ndim == 2:  # features get an axis of channels, of which they are one
                given, cover = given[:, None], cover[:, None]
            given = torch.cat([given, torch.zeros_like(given[:, :1])], dim=1)
            cover = torch.cat([cover, torch.ones_like(cover[:, :1])], dim=1)
        if given.ndim > 1 + len(places):
            window, stride = (given.shape[1], *window), (given.shape[1], *stride)
        return cls(name, lattice, given, cover, window, stride, clean, channels, region)

    @property
    def laid(self) -> int:
        """How many windows Captum lays."""
        return prod(map(len, self.lattice.axes))

    def asked(self, covered: Tensor) -> Tensor | None:
        """(B,): which rows are to be run, those where nothing is covered among them; ``None``: all."""
        if self._region is None:
            return None
        places = covered[:, -1] != 0
        return (places & self._region).flatten(1).any(dim=1) | ~places.flatten(1).any(dim=1)

    def whole(self, covered: Tensor, examples: Tensor) -> Tensor:
        """(B, …): whole inputs of the examples (B,), with what Captum covered in its place."""
        if self._region is not None:
            covered = covered[:, 0] if self._clean.ndim == 2 else covered[:, :-1]
        if covered.shape[1:] == self._clean.shape[1:] and self._channels is None:
            return covered
        whole = self._clean[examples]
        here = tuple(slice(begin, end) for begin, end in self.lattice.bounds)
        if whole.ndim == 2:
            whole[:, here[0]] = covered
        else:
            whole[(slice(None), slice(None) if self._channels is None else self._channels, *here)] = covered
        return whole

    def map(self, found: Tensor) -> Tensor:
        """(N, *places): what Captum gave each place, as the mean over the windows that are run; 0 beyond them."""
        places = places_of(self._clean)
        found = found if found.ndim == 1 + len(places) else found[:, 0]
        if self.lattice.kept is not None:
            found = found * torch.from_numpy(_shares(self.lattice)).to(found.device, found.dtype)
        whole = torch.zeros((len(found), *places), dtype=found.dtype, device=found.device)
        whole[(slice(None), *(slice(begin, end) for begin, end in self.lattice.bounds))] = found
        return whole


def _cut(tensor: Tensor, channels: Tensor | None, bounds: Bounds) -> Tensor:
    """Of (N, F) or (N, C, *places), the channels within bounds of the places."""
    here = tuple(slice(begin, end) for begin, end in bounds)
    if tensor.ndim == 1 + len(bounds):
        return tensor[(slice(None), *here)]
    return (tensor if channels is None else tensor[:, channels])[(slice(None), slice(None), *here)]


def _shares(lattice: Lattice) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """How many windows that Captum laid cover each place for each of them that is run; 0 where none is."""
    laid, run = (np.zeros([end - begin for begin, end in lattice.bounds]) for _ in range(2))
    for counts, windows in ((laid, Lattice(lattice.axes).windows), (run, lattice.windows)):
        for window in windows:
            pairs = zip(window, lattice.bounds, strict=True)
            counts[tuple(slice(begin - first, end - first) for (begin, end), (first, _) in pairs)] += 1
    return np.where(run > 0, laid / np.maximum(run, 1), 0.0)
