"""``HooksOcclusion``: clean scores, one difference per window, folded to pixels once."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from attribution.attributor import Attributor, Run
from attribution.isolation import process_flags
from attribution.isolation.notes import notes
from attribution.isolation.torch_modes import devices_of, note_random
from attribution.isolation.undo import Undo
from attribution.running.execution import first_line, lost
from attribution.technique import Maps
from attribution.techniques import Occlusion
from attribution.techniques.perturbation.family import places_of
from attribution.techniques.perturbation.lattice import Lattice
from attribution_hooks.chunks import rows_at_once
from attribution_hooks.covers import Covers
from attribution_hooks.incremental import differences as incremental
from attribution_hooks.incremental.graph import Known, Untraceable
from attribution_hooks.perturbation import dense
from attribution_hooks.perturbation.clean import clean
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
        with torch.no_grad():
            names = run.technique.covered(run.inputs)
            lattices = {name: run.technique.lattice(*places_of(run.inputs.values[name])) for name in names}
            chunk = rows_at_once(run, max(map(len, lattices.values())) * len(run.inputs))
            matrix = clean(run, chunk)
            run.note("windows", sum(map(len, lattices.values())))
            maps = {}
            for name, lattice in lattices.items():
                deltas = self._differences(run, name, lattice, matrix, chunk)
                maps[run.inputs.key(name)] = fold(deltas, lattice, places_of(run.inputs.values[name]))
        return maps

    def _differences(self, run: Run[Occlusion], name: str, lattice: Lattice, matrix: Tensor, chunk: int) -> Tensor:
        inputs = run.inputs.values[name]
        covers = Covers(inputs, run.technique.cover(inputs, name), lattice, run.technique.channels)
        restart = note_random(Undo(), devices_of(run.model, *run.inputs.tensors()))
        try:
            deltas = self._incremental(run, lattice, covers, matrix, chunk)
        finally:
            restart()  # dense draws the same
        if deltas is None:
            run.note("engine", "dense")
            deltas = dense.differences(run, name, covers, len(lattice), chunk)
        return deltas

    def _incremental(
        self, run: Run[Occlusion], lattice: Lattice, covers: Covers, logits: Tensor, chunk: int
    ) -> Tensor | None:
        try:
            if (reason := _whole_only(run, lattice, covers)) is not None:
                raise Untraceable(reason)
            return self._on_tiles(run, lattice, covers, logits, chunk)
        except Untraceable as reason:
            if lost(reason):
                raise
            run.note("reason", str(reason))
        except Exception as error:  # the model's own code, on tiles and symbols; whole images may suit it
            if lost(error):
                raise
            run.note("reason", f"failed on tiles: {first_line(error)}")
        return None

    def _on_tiles(self, run: Run[Occlusion], lattice: Lattice, covers: Covers, logits: Tensor, chunk: int) -> Tensor:
        undo = Undo()
        try:
            try:
                process_flags.untuned(undo, run.inputs.device)
                known = _known(run.model)
                return incremental.differences(run, lattice, covers, logits, known, chunk)
            finally:
                undo.back()
        finally:
            undo.back()


def _whole_only(run: Run[Occlusion], lattice: Lattice, covers: Covers) -> str | None:
    """Why tiles cannot be asked; ``None`` where they can: of one image tensor, each window of one colour."""
    if not run.execution.incremental:
        return run.apart or "Execution.incremental is False"
    if not run.inputs.plain:
        return "the model takes more than one tensor"
    if len(lattice.axes) != 2:
        return f"tiles are of images (N, C, H, W), and the input is {tuple(run.inputs.shape)}"
    if covers.cover.shape[0] > 1 or covers.cover[0, 0].numel() > 1:
        return "the baseline varies by place or image, and a tile is covered by one value per channel"
    if run.technique.channels is not None:
        return "windows cover some of the channels, and a tile is covered in all"
    if lattice.kept is not None:
        return "the windows that touch the region form no rectangle"
    if run.asked.of_layer is not None:
        return "the score is one of a layer, where the forward ends"
    if run.execution.autocast is not None:
        return "autocast chooses a precision op by op"
    return None


def _known(model: nn.Module) -> Known:
    """What earlier calls found out, if the model is a shadow; a model that runs itself has notes of one call only."""
    known: Known = notes(model).setdefault("occlusion", Known())
    return known
