"""``HooksOcclusion``: clean scores, one difference per window, folded to pixels once."""

from typing import ClassVar

import torch

from attribution.attributor import Attributor, Run
from attribution.technique import Maps
from attribution.techniques import Occlusion
from attribution.techniques.perturbation.family import places_of
from attribution.techniques.perturbation.lattice import Lattice
from attribution_hooks.chunks import rows_at_once
from attribution_hooks.covers import Covers
from attribution_hooks.perturbation.clean import clean
from attribution_hooks.perturbation.differences import differences
from attribution_hooks.perturbation.fold import fold


class HooksOcclusion(Attributor[Occlusion]):
    """`Occlusion` with every target from the same windows; sums in at least float32.

    Where the model can be taken apart, only what a window changes is computed again, to the same numbers; where it
    cannot, or would not gain, each window is one full forward. ``provenance["engine"]`` says which, and ``"reason"``
    why it was the full one.
    """

    technique_type: ClassVar[type[Occlusion]] = Occlusion
    backend: ClassVar[str] = "hooks"

    def compute(self, run: Run[Occlusion]) -> Maps:
        """(N, T, *places) of each covered input."""
        technique = run.technique
        with torch.no_grad():
            names = technique.covered(run.inputs)
            lattices = {name: technique.lattice(*places_of(run.inputs.values[name])) for name in names}
            chunk = rows_at_once(run, max(map(len, lattices.values())) * len(run.inputs))
            matrix = clean(run, chunk)
            run.note("windows", sum(map(len, lattices.values())))
            maps = {}
            for name, lattice in lattices.items():
                inputs = run.inputs.values[name]
                covers = Covers(inputs, technique.cover(inputs, name), lattice, technique.channels)
                deltas = differences(run, name, lattice, covers, matrix, chunk, _whole_only(technique, lattice))
                maps[run.inputs.key(name)] = fold(deltas, lattice, places_of(inputs))
        return maps


def _whole_only(technique: Occlusion, lattice: Lattice) -> str | None:
    """Why the windows cannot be asked as tiles."""
    if technique.channels is not None:
        return "windows cover some of the channels, and a tile is covered in all"
    if lattice.kept is not None:
        return "the windows that touch the region form no rectangle"
    return None
